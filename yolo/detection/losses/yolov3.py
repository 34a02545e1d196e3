"""YOLOv3's loss, as Darknet trains it (``yolo_layer.c``).

Darknet writes no loss but its negative gradient ``delta``; this loss has that very gradient:
``d loss / d raw = -delta / images``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.detection.assign.best_anchor import Assignment, assign_best_anchor
from yolo.detection.coders.anchor import AnchorCoder
from yolo.detection.full_precision import full_precision
from yolo.detection.losses.truths import (
    anchor_matches,
    excused_anchors,
    place_truths,
    rows_of_truths,
)
from yolo.records import GridMatches, Targets


class YOLOv3Loss(nn.Module):
    """The five terms of YOLOv3, each summed over the images and divided by those of the step.

    - ``xy``: BCE of the centre within its cell, times (2 - w * h) of the truth
    - ``wh``: half squared error of (tw, th), times (2 - w * h)
    - ``object``: BCE of objectness where a truth owns the anchor
    - ``no_object``: BCE of objectness elsewhere, except where the predicted box overlaps a truth
      by more than ``ignore_threshold`` or lies mainly in an ignored region
    - ``class``: BCE over all classes, or cross entropy

    Where two truths share an anchor of a cell, the later one's box counts and, with BCE, the
    labels of both.

    Args:
        coder: decodes and encodes boxes; also knows the anchors.
        class_loss: ``bce`` (the paper, section 2.2) or ``cross_entropy``.
        ignore_threshold: IoU above which an anchor that owns nothing is left alone
            (0.5 in the paper, 0.7 in Darknet's ``yolov3.cfg``).
        class_weights: (K,) weights of the classes in the ``class`` term.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        coder: AnchorCoder,
        class_loss: Literal["bce", "cross_entropy"] = "bce",
        ignore_threshold: float = 0.7,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.coder = coder
        self.class_loss = class_loss
        self.ignore_threshold = ignore_threshold
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(
        self,
        raw: Sequence[Tensor],
        targets: Targets,
        images_in_step: int,
        images_seen: int | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms in float32, whatever precision ``raw`` has.

        Args:
            raw: one (B, A, H, W, 5 + K) for each level.
            targets: the truth of the B images.
            images_in_step: images of the whole optimizer step, over all micro-batches and ranks.
            images_seen: not looked at: YOLOv3 punishes alike from the first image to the last.

        Returns:
            Scalars by term; their sum is the loss.
        """
        with torch.autocast(raw[0].device.type, enabled=False):
            boxes_px, assignment = place_truths(
                raw, targets, coder=self.coder, assign=assign_best_anchor
            )
            terms = self._owned_terms(raw, targets, boxes_px, assignment)
            terms["no_object"] = self._no_object(raw, targets, boxes_px, assignment)
            return {name: term / images_in_step for name, term in terms.items()}

    @torch.no_grad()
    def matches(self, raw: Sequence[Tensor], targets: Targets) -> GridMatches:
        """What the maps say where a truth is and where none is; as ``forward``, no gradients."""
        _, assignment = place_truths(raw, targets, coder=self.coder, assign=assign_best_anchor)
        return anchor_matches(raw, targets, assignment)

    def _owned_terms(
        self, raw: Sequence[Tensor], targets: Targets, boxes_px: Tensor, assignment: Assignment
    ) -> dict[str, Tensor]:
        """The terms of the anchors that own a truth."""
        rows = rows_of_truths(raw, targets, assignment)  # (T, 5 + K)
        target_xy, target_wh = self.coder.encode(
            boxes_px,
            level=assignment.level,
            anchor=assignment.anchor,
            row=assignment.row,
            column=assignment.column,
        )
        owns = assignment.owns.float()  # (T,)
        scale = owns * (2 - targets.boxes_cxcywh_norm[:, 2:].prod(dim=1))
        xy = F.binary_cross_entropy_with_logits(rows[:, :2], target_xy, reduction="none")
        wh = (rows[:, 2:4] - target_wh).square() / 2
        return {
            "xy": (xy.sum(dim=1) * scale).sum(),
            "wh": (wh.sum(dim=1) * scale).sum(),
            "object": (F.softplus(-rows[:, 4]) * owns).sum(),
            "class": (self._class(rows[:, 5:], targets, assignment) * owns).sum(),
        }

    def _class(self, logits: Tensor, targets: Targets, assignment: Assignment) -> Tensor:
        """Class loss of each truth. (T, K) -> (T,)."""
        truths, classes = logits.shape
        if self.class_loss == "cross_entropy":
            return F.cross_entropy(
                logits, targets.labels, weight=self.class_weights, reduction="none"
            )
        labels = logits.new_zeros(truths + 1, classes)  # the last row takes what is ignored
        # A number of Python's would be copied to the device, which older PyTorch waits for.
        labels.index_put_((assignment.owner, targets.labels), labels.new_ones(()))
        loss = F.binary_cross_entropy_with_logits(
            logits, labels[:-1], weight=self.class_weights, reduction="none"
        )
        return loss.sum(dim=1)

    def _no_object(
        self, raw: Sequence[Tensor], targets: Targets, boxes_px: Tensor, assignment: Assignment
    ) -> Tensor:
        """Objectness loss of the anchors that own nothing and are not excused."""
        excused = excused_anchors(
            raw,
            targets,
            boxes_px,
            assignment,
            coder=self.coder,
            ignore_threshold=self.ignore_threshold,
        )
        total = full_precision(raw[0].new_zeros(()))
        for values, flags in zip(raw, excused, strict=True):
            loss = F.softplus(full_precision(values[..., 4]))  # BCE with target 0
            total = total + loss.masked_fill(flags, 0.0).sum()
        return total
