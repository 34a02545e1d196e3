"""A short part of the golden losses; `make test-slow` and `make faults` run all of them."""

import json

import pytest

from tests.golden.make import GENERATIONS, PATH, RELATIVE, losses

QUICK = [*(f"{each}/darknet_tiny" for each in GENERATIONS), "yolov3/mobilenet_v3_small"]


@pytest.mark.parametrize("name", QUICK)
def test_losses_are_what_they_were(name: str) -> None:
    assert losses(name) == pytest.approx(json.loads(PATH.read_text())[name], rel=RELATIVE)
