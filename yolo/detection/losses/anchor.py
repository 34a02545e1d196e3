"""What YOLOv2 and YOLOv3 share: assign truths to anchors, encode them, sum the terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo.detection.assign import Assignment, assign_best_anchor
from yolo.detection.coders import AnchorCoder, full_precision
from yolo.detection.losses.loss import Loss, half_square, ignore_mask, pad_truths
from yolo.records import GridMatches, Targets


@dataclass(frozen=True, slots=True)
class PlacedTruths:
    """T truths, each beside the output of the anchor that it chose."""

    assignment: Assignment
    boxes_cxcywh_px: Tensor  # float32 (T, 4), in pixels of the network's input
    raw: Tensor  # float32 (T, 5 + K), the output at the anchors
    xy: Tensor  # (T, 2), what sigmoid(tx, ty) should be
    wh: Tensor  # (T, 2), what (tw, th) should be


class AnchorLoss(Loss):
    """A loss of maps of anchors; a generation defines the losses of single numbers.

    An anchor that owns no truth gets no loss where its IoU with one is above ``ignore_threshold``.
    """

    coord_scale = object_scale = no_object_scale = class_scale = 1.0  # factors on the terms

    xy_loss: Callable[[Tensor, Tensor], Tensor]  # of sigmoid(logits) against a target, (T, 2) all
    object_loss: Callable[[Tensor, PlacedTruths], Tensor]  # of objectness at truths, (T,) -> (T,)
    no_object_loss: Callable[[Tensor], Tensor]  # of objectness where no truth is, any shape
    class_loss: Callable[[Tensor, Targets, PlacedTruths], Tensor]  # at truths, (T, K) -> (T,)

    def __init__(
        self,
        *,
        coder: AnchorCoder,
        ignore_threshold: float,
        assign: Callable[..., Assignment] = assign_best_anchor,
    ) -> None:
        super().__init__()
        self.coder, self.ignore_threshold, self.assign = coder, ignore_threshold, assign

    def place(self, raw: Sequence[Tensor], targets: Targets) -> PlacedTruths:
        """Assign T truths to the anchors of maps (B, A, H, W, 5 + K), and encode them there."""
        grids_hw = [(values.shape[2], values.shape[3]) for values in raw]
        size_px = torch.empty(4, device=raw[0].device)  # filled there: nothing waits for a copy
        size_px[0::2] = grids_hw[0][1] * self.coder.stride_px[0]  # width
        size_px[1::2] = grids_hw[0][0] * self.coder.stride_px[0]  # height
        boxes_px = targets.boxes_cxcywh_norm * size_px
        a = self.assign(targets, boxes_px, self.coder, grids_hw=grids_hw, images=len(raw[0]))
        xy, wh = self.coder.encode(
            boxes_px, level=a.level, anchor=a.anchor, row=a.row, column=a.column
        )
        return PlacedTruths(a, boxes_px, _raw_of_truths(raw, targets, a), xy, wh)

    def terms(
        self, raw: Sequence[Tensor], targets: Targets, images_seen: int | None
    ) -> dict[str, Tensor]:
        """Of L maps (B, A, H, W, 5 + K); small boxes count up to twice."""
        placed = self.place(raw, targets)
        t, owns = placed.raw, placed.assignment.owns.float()  # (T, 5 + K), (T,)
        box_scale = owns * self.coord_scale * (2 - targets.boxes_cxcywh_norm[:, 2:].prod(dim=1))
        xy = self.xy_loss(t[:, :2], placed.xy).sum(dim=1)  # (T,)
        wh = half_square(t[:, 2:4] - placed.wh).sum(dim=1)  # (T,)
        objectness = self.object_loss(t[:, 4], placed)  # (T,)
        classes = self.class_loss(t[:, 5:], targets, placed)  # (T,)
        return {
            "xy": (xy * box_scale).sum(),
            "wh": (wh * box_scale).sum(),
            "object": self.object_scale * (objectness * owns).sum(),
            "class": self.class_scale * (classes * owns).sum(),
            "no_object": self.no_object_scale * self._no_object(raw, targets, placed),
            **self.own_terms(raw, placed, images_seen),
        }

    def own_terms(
        self, raw: Sequence[Tensor], placed: PlacedTruths, images_seen: int | None
    ) -> dict[str, Tensor]:
        """What a generation adds to the terms that both have."""
        return {}

    @torch.no_grad()
    def matches(self, raw: Sequence[Tensor], targets: Targets) -> GridMatches:
        """Raw outputs at the places with and without a truth, for the accuracy of the grid."""
        placed = self.place(raw, targets)
        objectness = [full_precision(values[..., 4]).sigmoid().flatten() for values in raw]
        return GridMatches(
            objectness=torch.cat(objectness),
            owned=torch.cat([owned.flatten() for owned in placed.assignment.owned]),
            class_logits=placed.raw[:, 5:],
            labels=targets.labels,
            counted=placed.assignment.owns,
            dropped=placed.assignment.dropped,
        )

    def _no_object(self, raw: Sequence[Tensor], targets: Targets, placed: PlacedTruths) -> Tensor:
        """Objectness loss of the anchors that own nothing and are not ignored."""
        padded = pad_truths(targets, placed.boxes_cxcywh_px, len(raw[0]), self.ignore_threshold)
        total = full_precision(raw[0].new_zeros(()))
        for level, (values, owned) in enumerate(zip(raw, placed.assignment.owned, strict=True)):
            with torch.no_grad():
                without_loss = ignore_mask(self.coder.level_boxes(values, level), padded) | owned
            loss = self.no_object_loss(full_precision(values[..., 4]))  # (B, A, H, W)
            total = total + loss.masked_fill(without_loss, 0.0).sum()
        return total


def _raw_of_truths(raw: Sequence[Tensor], targets: Targets, assignment: Assignment) -> Tensor:
    """The raw output at the anchor of each truth: float32 (T, 5 + K).

    Every level is read at T places, its own truths' or place 0, so that no shape depends on how
    the truths spread over the levels.
    """
    places = (targets.image_index, assignment.anchor, assignment.row, assignment.column)
    rows = []
    for level, values in enumerate(raw):
        here = assignment.level == level
        found = values[tuple(torch.where(here, index, 0) for index in places)]  # (T, 5 + K)
        rows.append(full_precision(found).where(here[:, None], 0.0))
    return torch.stack(rows).sum(dim=0)  # (L, T, 5 + K) -> (T, 5 + K)
