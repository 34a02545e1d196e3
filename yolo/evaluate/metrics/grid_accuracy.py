"""How often the cells of a grid are right: about objects, about empty places, about classes."""

from __future__ import annotations

import torch
from torch import Tensor

from yolo.records import GridMatches

OBJECT_THRESHOLD = 0.5
"""The objectness from which on a box says that there is an object."""


@torch.no_grad()
def grid_accuracy(matches: GridMatches) -> dict[str, Tensor]:
    """Count what is right in one batch; hits and totals of several batches add up.

    - ``class``: truths whose place gives their class the largest number
    - ``object``: boxes that own a truth and say so
    - ``no_object``: boxes that own none and say so
    - ``placed``: truths that own a place, of all but the ignored ones; the others lost it to a
      truth in the same cell and are not learnt

    Nothing waits for the device.

    Returns:
        By name float64 (2,): how many are right, of how many.
    """
    positive = matches.objectness > OBJECT_THRESHOLD  # (M,)
    right = matches.class_logits.argmax(dim=1) == matches.labels  # (T,)
    return {
        "class": _count(right & matches.counted, matches.counted),
        "object": _count(positive & matches.owned, matches.owned),
        "no_object": _count(~positive & ~matches.owned, ~matches.owned),
        "placed": _count(matches.counted, matches.dropped | matches.counted),
    }


def _count(hits: Tensor, of: Tensor) -> Tensor:
    return torch.stack((hits.sum(), of.sum())).double()
