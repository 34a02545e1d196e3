"""YOLOv2's loss, as Darknet trains it on a GPU (``region_layer.c``).

Darknet writes no loss but its negative gradient ``delta``, for x, y and objectness with respect to
their sigmoid; its backward pass multiplies the sigmoid's slope to it. This loss has that very
gradient: ``d loss / d raw = -delta * slope / images``, and ``-delta / images`` for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.boxes import cxcywh_to_xyxy, pairwise_iou
from yolo.detection.assign.best_anchor import Assignment, assign_best_anchor
from yolo.detection.assign.greedy import assign_greedily
from yolo.detection.coders.anchor import AnchorCoder
from yolo.detection.full_precision import full_precision
from yolo.detection.losses.truths import (
    anchor_matches,
    excused_anchors,
    place_truths,
    rows_of_truths,
)
from yolo.records import GridMatches, Targets

ASSIGNMENTS = {"darknet": assign_best_anchor, "global": assign_greedily}

PRIOR_SCALE = 0.01
"""Darknet's factor on the pull to the anchors while training begins."""


class YOLOv2Loss(nn.Module):
    """The six terms of YOLOv2, each summed over the images and divided by those of the step.

    All but ``class`` are half squared errors:

    - ``xy``: of the centre within its cell, times ``coord_scale`` * (2 - w * h) of the truth
    - ``wh``: of (tw, th), times the same
    - ``object``: of objectness where a truth owns the anchor; the target is the IoU of the
      predicted box with that truth
    - ``no_object``: of objectness elsewhere, except where the predicted box overlaps a truth by
      more than ``ignore_threshold`` or lies mainly in an ignored region
    - ``class``: cross entropy
    - ``prior``: over the first images, of every box without a truth from its anchor at the centre
      of its cell, times 0.01

    Args:
        coder: decodes and encodes boxes; also knows the anchors.
        assignment: where several truths share a cell: ``darknet``, each takes its best anchor and
            the later one wins; ``global``, the best fitting pairs first, each anchor once.
        ignore_threshold: IoU above which an anchor that owns nothing is left alone.
        coord_scale, object_scale, no_object_scale, class_scale: factors on the terms.
        rescore: False sets the target of ``object`` to 1.
        prior_images: how many images "the first" are.
    """

    def __init__(
        self,
        *,
        coder: AnchorCoder,
        assignment: Literal["darknet", "global"] = "darknet",
        ignore_threshold: float = 0.6,
        coord_scale: float = 1.0,
        object_scale: float = 5.0,
        no_object_scale: float = 1.0,
        class_scale: float = 1.0,
        rescore: bool = True,
        prior_images: int = 12_800,
    ) -> None:
        super().__init__()
        self.coder = coder
        self.assign = ASSIGNMENTS[assignment]
        self.ignore_threshold = ignore_threshold
        self.coord_scale = coord_scale
        self.object_scale = object_scale
        self.no_object_scale = no_object_scale
        self.class_scale = class_scale
        self.rescore = rescore
        self.prior_images = prior_images
        (self.stride_px,) = coder.stride_px

    def forward(
        self,
        raw: Sequence[Tensor],
        targets: Targets,
        images_in_step: int,
        images_seen: int | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms in float32, whatever precision ``raw`` has.

        Args:
            raw: one map (B, A, H, W, 5 + K).
            targets: the truth of the B images.
            images_in_step: images of the whole optimizer step, over all micro-batches and ranks.
            images_seen: images that the steps before have trained on; None outside training, where
                there is no ``prior``.

        Returns:
            Scalars by term; their sum is the loss.
        """
        with torch.autocast(raw[0].device.type, enabled=False):
            boxes_px, assignment = place_truths(raw, targets, coder=self.coder, assign=self.assign)
            early = images_seen is not None and images_seen < self.prior_images
            terms = self._owned_terms(raw, targets, boxes_px, assignment)
            terms["no_object"] = self._no_object(raw, targets, boxes_px, assignment)
            terms["prior"] = (
                _prior(raw[0], assignment) if early else full_precision(raw[0].new_zeros(()))
            )
            return {name: term / images_in_step for name, term in terms.items()}

    @torch.no_grad()
    def matches(self, raw: Sequence[Tensor], targets: Targets) -> GridMatches:
        """What a map says where a truth is and where none is; as ``forward``, without gradients."""
        _, assignment = place_truths(raw, targets, coder=self.coder, assign=self.assign)
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
        target_object = self._target_object(rows, target_xy, boxes_px[:, 2:], assignment)
        owns = assignment.owns.float()  # (T,)
        scale = owns * self.coord_scale * (2 - targets.boxes_cxcywh_norm[:, 2:].prod(dim=1))
        xy = _half_square(rows[:, :2].sigmoid() - target_xy).sum(dim=1)
        wh = _half_square(rows[:, 2:4] - target_wh).sum(dim=1)
        objectness = _half_square(rows[:, 4].sigmoid() - target_object)
        classes = F.cross_entropy(rows[:, 5:], targets.labels, reduction="none")
        return {
            "xy": (xy * scale).sum(),
            "wh": (wh * scale).sum(),
            "object": self.object_scale * (objectness * owns).sum(),
            "class": self.class_scale * (classes * owns).sum(),
        }

    @torch.no_grad()
    def _target_object(
        self, rows: Tensor, target_xy: Tensor, truth_wh_px: Tensor, assignment: Assignment
    ) -> Tensor:
        """What objectness should be at each truth, (T,): the IoU of its box, seen from its cell."""
        if not self.rescore:
            return rows.new_ones(len(rows))
        boxes = self.coder.boxes_in_cells(rows, level=assignment.level, anchor=assignment.anchor)
        truths = cxcywh_to_xyxy(torch.cat((target_xy * self.stride_px, truth_wh_px), dim=1))
        return pairwise_iou(boxes[:, None], truths[:, None])[:, 0, 0]  # (T, 1, 1) -> (T,)

    def _no_object(
        self, raw: Sequence[Tensor], targets: Targets, boxes_px: Tensor, assignment: Assignment
    ) -> Tensor:
        """Objectness loss of the anchors that own nothing and are not excused."""
        (excused,) = excused_anchors(
            raw,
            targets,
            boxes_px,
            assignment,
            coder=self.coder,
            ignore_threshold=self.ignore_threshold,
        )
        loss = _half_square(full_precision(raw[0][..., 4]).sigmoid())  # the target is 0
        return self.no_object_scale * loss.masked_fill(excused, 0.0).sum()


def _prior(values: Tensor, assignment: Assignment) -> Tensor:
    """What draws boxes without a truth to their anchor: sigmoid(tx, ty) to a half, tw, th to 0."""
    (owned,) = assignment.owned
    boxes = full_precision(values[..., :4])
    away = torch.cat((boxes[..., :2].sigmoid() - 0.5, boxes[..., 2:]), dim=-1)
    return PRIOR_SCALE * _half_square(away).sum(dim=-1).masked_fill(owned, 0.0).sum()


def _half_square(error: Tensor) -> Tensor:
    return error.square() / 2
