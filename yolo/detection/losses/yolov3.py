"""YOLOv3's loss, as Darknet trains it (``yolo_layer.c``).

Darknet computes the negative gradient ``delta``; here ``d loss / d raw = -delta / images``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo.detection.coders import AnchorCoder
from yolo.detection.losses.anchor import AnchorLoss, AnchorSettings, PlacedTruths

DARKNET = AnchorSettings()


class YOLOv3Loss(AnchorLoss):
    """The five terms of YOLOv3, each times its scale.

    - ``xy``: BCE of the centre within its cell, times (2 - w * h) of the truth
    - ``wh``: half squared error of (tw, th), times (2 - w * h); another ``box`` loss has one term
      ``box`` for both
    - ``object``: BCE of objectness where a truth owns the anchor; the target is 1, with ``rescore``
      the IoU of the predicted box with that truth
    - ``no_object``: BCE of objectness elsewhere, except where the predicted box overlaps a truth
      by more than ``ignore_threshold`` or lies mainly in an ignored region
    - ``class``: BCE over all classes, or cross entropy

    Where two truths share an anchor of a cell, the later one's box counts and, with BCE, the
    labels of both.

    Args:
        settings: the paper's ``ignore_threshold`` is 0.5, that of ``yolov3.cfg`` 0.7; with
            ``label_smoothing`` e, BCE's targets are 1 - e / 2 and e / 2 (AlexeyAB's
            ``label_smooth_eps``), and cross entropy spreads e over all classes.
        class_loss: ``bce`` (the paper, section 2.2) or ``cross_entropy``.
        class_weights: (K,) weights of the classes in the ``class`` term.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        coder: AnchorCoder,
        settings: AnchorSettings = DARKNET,
        class_loss: Literal["bce", "cross_entropy"] = "bce",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(coder, settings)
        self.exclusive_classes = class_loss == "cross_entropy"
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def xy_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        # the gradient is the error of the centre in cells, as AlexeyAB's Darknet has it
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return self.coder.scale_xy * loss

    def object_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.softplus(-logits) + (1 - target) * logits  # BCE

    def no_object_loss(self, logits: Tensor) -> Tensor:
        return F.softplus(logits)  # BCE with target 0

    def class_loss(self, logits: Tensor, placed: PlacedTruths) -> Tensor:
        weight, smoothing = self.class_weights, self.settings.label_smoothing
        if self.exclusive_classes:
            return F.cross_entropy(
                logits, placed.labels, weight=weight, reduction="none", label_smoothing=smoothing
            )
        pairs, classes = logits.shape
        labels = logits.new_zeros(pairs + 1, classes)  # the last row takes what is excluded
        # A number of Python's would be copied to the device, which older PyTorch waits for.
        labels.index_put_((placed.assignment.owner, placed.labels), labels.new_ones(()))
        target = labels[:-1] * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="none")
        return loss.sum(dim=1)
