"""YOLOv2's loss, as Darknet trains it on a GPU (``region_layer.c``).

Darknet computes the negative gradient ``delta``, for x, y and objectness with respect to their
sigmoid; its backward pass multiplies it by the sigmoid's slope. So here
``d loss / d raw = -delta * slope / images``, and ``-delta / images`` for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo.detection.coders import AnchorCoder, full_precision
from yolo.detection.losses.anchor import AnchorLoss, AnchorSettings, PlacedTruths
from yolo.detection.losses.loss import half_square

PRIOR_SCALE = 0.01  # Darknet's
DARKNET = AnchorSettings(ignore_threshold=0.6, object_scale=5.0, rescore=True)


class YOLOv2Loss(AnchorLoss):
    """The six terms of YOLOv2, each times its scale. All but ``class`` are half squared errors.

    - ``xy``: of the centre within its cell, times (2 - w * h) of the truth
    - ``wh``: of (tw, th), times the same; another ``box`` loss has one term ``box`` for both
    - ``object``: of objectness where a truth owns the anchor; the target is the IoU of the
      predicted box with that truth (1 without ``rescore``)
    - ``no_object``: of objectness elsewhere, except where the predicted box overlaps a truth by
      more than ``ignore_threshold`` or lies mainly in an ignored region
    - ``class``: cross entropy, of a truth of which ``label_smoothing`` is spread over all classes
    - ``prior``: over the first ``prior_images``, of every box without a truth from its anchor at
      the centre of its cell; 0 outside training

    Where several truths share a cell, with the assignment ``darknet`` each takes its best anchor
    and the later one wins; with ``global`` the best fitting pairs come first, each anchor once. The
    other assignments give a truth several anchors.
    """

    def __init__(
        self, *, coder: AnchorCoder, settings: AnchorSettings = DARKNET, prior_images: int = 12_800
    ) -> None:
        super().__init__(coder, settings)
        self.prior_images = prior_images

    def own_terms(
        self, raw: Sequence[Tensor], placed: PlacedTruths, images_seen: int | None
    ) -> dict[str, Tensor]:
        if images_seen is None or images_seen >= self.prior_images:
            return {"prior": placed.raw.new_zeros(())}
        (owned,) = placed.assignment.owned
        boxes = full_precision(raw[0][..., :4])
        errors = torch.cat((boxes[..., :2].sigmoid() - 0.5, boxes[..., 2:]), dim=-1)
        prior = half_square(errors).sum(dim=-1).masked_fill(owned, 0.0).sum()
        return {"prior": PRIOR_SCALE * prior}

    def xy_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return half_square(self.coder.scale_xy * (logits.sigmoid() - target))

    def object_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return half_square(logits.sigmoid() - target)

    def no_object_loss(self, logits: Tensor) -> Tensor:
        return half_square(logits.sigmoid())

    def class_loss(self, logits: Tensor, placed: PlacedTruths) -> Tensor:
        smoothing = self.settings.label_smoothing
        return F.cross_entropy(logits, placed.labels, reduction="none", label_smoothing=smoothing)
