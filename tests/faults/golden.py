"""Twenty seeded losses of every generation and encoder are what they were."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.trial import Property
from tests.golden.make import PATH, find_difference, losses

PROPERTY = "15 Golden losses"

NAMES = tuple(sorted(json.loads(PATH.read_text()), key=lambda name: "/darknet_tiny" not in name))
"""The fastest encoder first: few trials are those."""


def golden_losses(seed: int, folder: Path) -> None:
    """20 seeded steps of every generation with every encoder: twice equal to the bit; within 1e-4
    of tests/golden/losses.json while rounding is not multiplied.
    """
    del folder
    name = NAMES[seed]
    found, again = losses(name), losses(name)
    assert found == again, f"{name}: two runs differ"
    difference = find_difference(name, found)
    assert difference is None, difference


TRIALS = [
    Property(golden_losses, full=len(NAMES), quick=2, limit_s=180),
]
