"""The loss of a classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.detection.full_precision import full_precision
from yolo.records import Targets


class ClassificationLoss(nn.Module):
    """Softmax and cross entropy, summed over the images and divided by those of the step.

    Args:
        label_smoothing: share of the truth that is spread evenly over all classes
            (Szegedy et al. 2016, section 7).
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(
        self, logits: Tensor, targets: Targets, images_in_step: int, images_seen: int | None = None
    ) -> dict[str, Tensor]:
        """Compute the one term, ``class``, in float32, whatever precision ``logits`` has.

        Args:
            logits: (B, K).
            targets: one label for each of the B images.
            images_in_step: images of the whole optimizer step, over all micro-batches and ranks.
            images_seen: not looked at.
        """
        del images_seen
        assert len(targets) == len(logits), "an image of a classifier has one label"
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(
                full_precision(logits),
                targets.labels,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
        return {"class": total / images_in_step}
