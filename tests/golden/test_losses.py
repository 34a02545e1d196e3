"""A short part of the golden losses; `make test-slow` and `make faults` run all of them."""

import json

import pytest

from tests.golden.make import GENERATIONS, PATH, find_difference, losses

QUICK = [*(f"{each}/darknet_tiny" for each in GENERATIONS), "yolov3/mobilenet_v3_small"]


@pytest.mark.parametrize("name", QUICK)
def test_losses_are_what_they_were(name: str) -> None:
    assert find_difference(name, losses(name)) is None


@pytest.mark.parametrize(("step", "is_told"), [(0, True), (3, True), (4, False)])
def test_another_loss_is_told(step: int, is_told: bool) -> None:
    stored = json.loads(PATH.read_text())["yolov1/darknet_tiny"]
    stored[step] *= 1.001
    assert (find_difference("yolov1/darknet_tiny", stored) is not None) == is_told
