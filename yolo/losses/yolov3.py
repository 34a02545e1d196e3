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

from yolo.assign.best_anchor import Assignment, assign_best_anchor
from yolo.boxes import area, cxcywh_to_xyxy
from yolo.coders.anchor import AnchorCoder
from yolo.records import Targets

IGNORED_SHARE = 0.5
"""A prediction lies in an ignored region when more than this share of its own area does."""


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
        self, raw: Sequence[Tensor], targets: Targets, images_in_step: int
    ) -> dict[str, Tensor]:
        """Compute the terms in float32, whatever precision ``raw`` has.

        Args:
            raw: one (B, A, H, W, 5 + K) for each level.
            targets: the truth of the B images.
            images_in_step: images of the whole optimizer step, over all micro-batches and ranks.

        Returns:
            Scalars by term; their sum is the loss.
        """
        with torch.autocast(raw[0].device.type, enabled=False):
            boxes_px = targets.boxes_cxcywh_norm * _input_size_px(raw[0], self.coder.stride_px[0])
            assignment = assign_best_anchor(
                targets,
                boxes_px,
                anchors_px=self.coder.anchors_px,
                grids_hw=[(values.shape[2], values.shape[3]) for values in raw],
                stride_px=self.coder.stride_px,
                images=len(raw[0]),
            )
            terms = self._owned_terms(raw, targets, boxes_px, assignment)
            terms["no_object"] = self._no_object(raw, targets, boxes_px, assignment)
            return {name: term / images_in_step for name, term in terms.items()}

    def _owned_terms(
        self, raw: Sequence[Tensor], targets: Targets, boxes_px: Tensor, assignment: Assignment
    ) -> dict[str, Tensor]:
        """The terms of the anchors that own a truth."""
        rows = _rows_of_truths(raw, targets, assignment)  # (T, 5 + K)
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
        labels[assignment.owner, targets.labels] = 1.0
        loss = F.binary_cross_entropy_with_logits(
            logits, labels[:-1], weight=self.class_weights, reduction="none"
        )
        return loss.sum(dim=1)

    def _no_object(
        self, raw: Sequence[Tensor], targets: Targets, boxes_px: Tensor, assignment: Assignment
    ) -> Tensor:
        """Objectness loss of the anchors that own nothing and are not excused."""
        truths = _pad_truths(targets, boxes_px, len(raw[0]), self.ignore_threshold)
        total = raw[0].new_zeros((), dtype=torch.float32)
        for level, (values, owned) in enumerate(zip(raw, assignment.owned, strict=True)):
            with torch.no_grad():
                boxes = self.coder.level_boxes(values, level).flatten(1, 3)  # (B, N, 4)
                excused = _covered(boxes, *truths).view(owned.shape) | owned
            loss = F.softplus(values[..., 4].float())  # BCE with target 0
            total = total + loss.masked_fill(excused, 0.0).sum()
        return total


def _rows_of_truths(raw: Sequence[Tensor], targets: Targets, assignment: Assignment) -> Tensor:
    """The raw output at the anchor of each truth: float32 (T, 5 + K).

    Every level is read at T places, its own truths' or place 0, so that no shape depends on how
    the truths spread over the levels.
    """
    rows = []
    for level, values in enumerate(raw):
        here = assignment.level == level
        at = [
            torch.where(here, index, 0)
            for index in (targets.image_index, assignment.anchor, assignment.row, assignment.column)
        ]
        rows.append(values[at[0], at[1], at[2], at[3]].float().where(here[:, None], 0.0))
    return torch.stack(rows).sum(dim=0)  # (L, T, 5 + K) -> (T, 5 + K)


def _input_size_px(raw: Tensor, stride_px: int) -> Tensor:
    """Width, height, width, height of the network's input, (4,); filled on the device."""
    size = torch.empty(4, device=raw.device)
    size[0::2] = raw.shape[3] * stride_px
    size[1::2] = raw.shape[2] * stride_px
    return size


def _pad_truths(
    targets: Targets, boxes_cxcywh_px: Tensor, images: int, ignore_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Truths per image, padded to M = ``targets.max_per_image``, with the test they stand for.

    A prediction with area p that shares the area s with a truth of area t is excused where
    ``s > share * p + floor``:

    - IoU above a threshold h is s > h * (p + t - s), so share = h / (1 + h), floor = share * t
    - mainly inside an ignored region is s > 0.5 * p, so share = 0.5, floor = 0
    - a padded place excuses nothing: floor = infinity

    Returns:
        Boxes xyxy in pixels (B, M, 4), shares (B, M), floors (B, M).
    """
    image, device = targets.image_index, boxes_cxcywh_px.device
    first = torch.searchsorted(image, torch.arange(images, device=device))  # (B,)
    place = torch.arange(len(targets), device=device) - first[image]  # (T,) 0..M-1

    most = targets.max_per_image
    corners = cxcywh_to_xyxy(boxes_cxcywh_px)
    share = ignore_threshold / (1 + ignore_threshold)
    boxes = corners.new_zeros(images, most, 4)
    shares = corners.new_zeros(images, most)
    floors = corners.new_full((images, most), torch.inf)
    boxes[image, place] = corners
    shares[image, place] = torch.where(targets.ignored, IGNORED_SHARE, share)
    floors[image, place] = torch.where(targets.ignored, 0.0, share * area(corners))
    return boxes, shares, floors


def _covered(boxes: Tensor, truths: Tensor, shares: Tensor, floors: Tensor) -> Tensor:
    """Which predictions a truth of their image excuses. (B, N, 4), (B, M, ...) -> bool (B, N).

    Written coordinate by coordinate: (B, M, N) planes are read and written once each, which is
    what decides its speed.
    """
    x1, y1, x2, y2 = boxes.transpose(1, 2).contiguous().unsqueeze(2).unbind(1)  # each (B, 1, N)
    left, top, right, bottom = truths.unsqueeze(-1).unbind(2)  # each (B, M, 1)
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)  # (B, M, N)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0)
    needed = torch.addcmul(floors.unsqueeze(-1), shares.unsqueeze(-1), (x2 - x1) * (y2 - y1))
    return (width.mul_(height) > needed).any(dim=1)
