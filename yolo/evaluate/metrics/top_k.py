"""How often the truth is among the k best answers of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor

RANKS = (1, 5)


def top_k(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Count the images whose truth is among the best 1 and among the best 5 classes.

    Another class of the same score counts as better, and so does one whose score is not a number:
    a network that answers the same for all classes has found nothing. With fewer than 6 classes
    top-5 says nothing.

    Args:
        logits: (B, K), or scores of any other kind.
        labels: int64 (B,).

    Returns:
        ``top1`` and ``top5``: int64 (2,), hits and images.
    """
    own = logits.gather(1, labels[:, None])  # (B, 1)
    better = (~(logits < own)).sum(dim=1) - 1  # (B,), the truth itself is not below itself
    return {f"top{k}": _count(better < k) for k in RANKS}


def _count(hit: Tensor) -> Tensor:
    return torch.stack([hit.sum(), torch.full_like(hit.sum(), len(hit))])
