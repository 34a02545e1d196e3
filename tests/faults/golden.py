"""Twenty seeded losses of every generation and encoder are what they were."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.trial import Property
from tests.golden.make import PATH, RELATIVE, losses

PROPERTY = "15 Golden losses"

STORED = json.loads(PATH.read_text())
NAMES = tuple(sorted(STORED, key=lambda name: not name.endswith("/darknet_tiny")))
"""The fastest encoder first: few trials are those."""


def golden_losses(seed: int, folder: Path) -> None:
    """20 seeded steps of every generation with every encoder: twice equal to the bit, within 1e-4
    of tests/golden/losses.json.
    """
    del folder
    name = NAMES[seed]
    expected = STORED[name]
    found, again = losses(name), losses(name)
    assert found == again, f"{name}: two runs differ"
    far = [
        (step, one, other)
        for step, (one, other) in enumerate(zip(found, expected, strict=True))
        if not abs(one - other) <= RELATIVE * abs(other)
    ]
    assert not far, f"{name}: step, found, expected: {far[0]}"


TRIALS = [
    Property(golden_losses, full=len(NAMES), quick=2, limit_s=180),
]
