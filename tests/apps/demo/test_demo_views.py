"""Boxes, table and maps, with a finder whose boxes are known."""

import math

import numpy as np
import pytest

from tests.apps.demo.stand_ins import QuarterFinder, explain
from yolo.apps.demo.pictures import Views
from yolo.apps.report.drawing import class_colour
from yolo.errors import UserError

GREY = np.full((200, 100, 3), 128, np.uint8)


def test_table_and_drawing():
    finder = QuarterFinder()
    drawn, rows = Views(finder, explain).boxes(GREY, 0.3, 0.5)
    assert rows == [("cat", 0.9, 0, 0, 50, 100), ("<b>dog</b>", 0.4, 0, 0, 100, 200)]
    assert finder.asked == [(0.3, 0.5)]
    assert drawn.shape == GREY.shape
    assert (drawn[80, 48:52] == class_colour(0)).all(1).any()  # the cat's right side
    assert Views(finder, explain).boxes(GREY, 0.5, 0.5)[1] == rows[:1]
    assert Views(finder, explain).boxes(GREY, 1, 0.5)[1] == []


def test_a_large_picture_is_shown_small_but_measured_whole():
    large = np.full((3200, 1600, 3), 128, np.uint8)
    views = Views(QuarterFinder(), explain)
    drawn, rows = views.boxes(large, 0.5, 0.5)
    assert rows == [("cat", 0.9, 0, 0, 800, 1600)]
    assert drawn.shape == (1600, 800, 3)
    assert (drawn[700, 397:403] == class_colour(0)).all(1).any()
    assert [overlay.shape for overlay, _ in views.maps(large)] == [(1600, 800, 3)] * 2
    assert [caption for _, caption in views.maps(large)] == ["stride8", "stride16"]


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, math.inf, None, "0.5", {"path": "x"}])
def test_thresholds_that_a_browser_would_not_send(value):
    with pytest.raises(UserError, match="confidence: must be a number from 0 to 1"):
        Views(QuarterFinder(), explain).boxes(GREY, value, 0.5)
    with pytest.raises(UserError, match="IoU: must be"):
        Views(QuarterFinder(), explain).boxes(GREY, 0.5, value)
