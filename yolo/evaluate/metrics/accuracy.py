"""Right answers, counted on the device: of a grid's cells, and of a classifier.

Nothing waits for the device. Counts are (2,) by name, right answers and of how many; those of
several batches add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yolo.records import GridMatches, Targets

OBJECT_THRESHOLD = 0.5
"""The objectness above which a box claims an object."""


@torch.no_grad()
def grid_accuracy(matches: GridMatches) -> dict[str, Tensor]:
    """What raw maps get right in one batch: float64 (2,) by name.

    - ``class``: truths whose place gives their class the largest number
    - ``object``: boxes that own a truth and claim an object
    - ``no_object``: boxes that own none and claim none
    - ``placed``: truths that own a place, of all but the ignored ones; the others lost it to a
      truth in the same cell and are not learnt
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


def label_accuracy(logits: Tensor, targets: Targets) -> dict[str, Tensor]:
    """``top_k`` of images with one label each."""
    return top_k(logits, targets.labels)


def top_k(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Images whose truth is among the best 1 (``top1``) and the best 5 (``top5``): int64 (2,).

    Another class of the same score counts as better, and so does one whose score is not a number:
    a network that answers the same for all classes has found nothing. With fewer than 6 classes
    top-5 means nothing.

    Args:
        logits: (B, K), or scores of any other kind.
        labels: int64 (B,).
    """
    own = logits.gather(1, labels[:, None])  # (B, 1)
    better = (~(logits < own)).sum(dim=1) - 1  # (B,), the truth itself is not below itself
    images = better.new_full((), len(better))
    return {f"top{k}": torch.stack([(better < k).sum(), images]) for k in (1, 5)}
