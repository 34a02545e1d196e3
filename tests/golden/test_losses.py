"""A short part of the golden losses; `make test-slow` and `make faults` run all of them."""

import json

import pytest

from tests.golden.make import GENERATIONS, PATH, comparable, find_difference, losses

QUICK = [*(f"{each}/darknet_tiny" for each in GENERATIONS), "yolov3/mobilenet_v3_small"]


@pytest.mark.parametrize("name", QUICK)
def test_losses_are_what_they_were(name: str) -> None:
    assert find_difference(name, losses(name)) is None


def test_another_loss_is_told() -> None:
    stored = json.loads(PATH.read_text())["yolov1/darknet_tiny"]
    assert find_difference("yolov1/darknet_tiny", stored) is None
    assert "step 2" in find_difference("yolov1/darknet_tiny", [*stored[:2], 1.001 * stored[2], 0.0])


def test_losses_that_rounding_moves_are_not_compared() -> None:
    assert comparable([1.0, 2.0, 3.0, 4.0], [1.0, 2.00001, 3.1, 4.0]) == [1.0, 2.0]
