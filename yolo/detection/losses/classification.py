"""The loss of a classifier."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from yolo.detection.coders import full_precision
from yolo.detection.losses.loss import Loss
from yolo.records import Targets


class ClassificationLoss(Loss):
    """One term, ``class``: softmax and cross entropy.

    Args:
        label_smoothing: share of the truth that is spread evenly over all classes
            (Szegedy et al. 2016, section 7).
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def terms(self, logits: Tensor, targets: Targets, images_seen: int | None) -> dict[str, Tensor]:
        """The term of logits (B, K) and one label for each image."""
        assert len(targets) == len(logits), "an image of a classifier has one label"
        total = F.cross_entropy(
            full_precision(logits),
            targets.labels,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return {"class": total}
