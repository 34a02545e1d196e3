"""What YOLOv2 and YOLOv3 share: assign truths to anchors, encode them, sum the terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo.detection.assign import Assign, Assignment, assign_best_anchor
from yolo.detection.coders import AnchorCoder, full_precision
from yolo.detection.losses.loss import Loss, half_square, ignore_mask, pad_truths
from yolo.records import GridMatches, Targets


@dataclass(frozen=True, slots=True)
class PlacedTruths:
    """P pairs of a truth and an anchor, each beside the output of the anchor."""

    assignment: Assignment
    truths_cxcywh_px: Tensor  # float32 (T, 4), all truths in pixels of the network's input
    boxes_cxcywh_px: Tensor  # float32 (P, 4), the truth of each pair
    labels: Tensor  # int64 (P,)
    raw: Tensor  # float32 (P, 5 + K), the output at the anchors
    xy: Tensor  # (P, 2), what sigmoid(tx, ty) should be
    wh: Tensor  # (P, 2), what (tw, th) should be


class AnchorLoss(Loss):
    """A loss of maps of anchors; a generation defines the losses of single numbers.

    An anchor that owns no truth gets no loss where its IoU with one is above ``ignore_threshold``.
    """

    coord_scale = object_scale = no_object_scale = class_scale = 1.0  # factors on the terms

    xy_loss: Callable[[Tensor, Tensor], Tensor]  # of sigmoid(logits) against a target, (P, 2) all
    object_loss: Callable[[Tensor, PlacedTruths], Tensor]  # of objectness at truths, (P,) -> (P,)
    no_object_loss: Callable[[Tensor], Tensor]  # of objectness where no truth is, any shape
    class_loss: Callable[[Tensor, PlacedTruths], Tensor]  # at truths, (P, K) -> (P,)

    def __init__(
        self,
        *,
        coder: AnchorCoder,
        ignore_threshold: float,
        assign: Assign = assign_best_anchor,
    ) -> None:
        super().__init__()
        self.coder, self.ignore_threshold, self.assign = coder, ignore_threshold, assign

    def place(self, raw: Sequence[Tensor], targets: Targets) -> PlacedTruths:
        """Assign T truths to the anchors of maps (B, A, H, W, 5 + K), and encode them there."""
        size_px = torch.empty(4, device=raw[0].device)  # filled there: nothing waits for a copy
        size_px[0::2] = raw[0].shape[3] * self.coder.stride_px[0]  # width
        size_px[1::2] = raw[0].shape[2] * self.coder.stride_px[0]  # height
        truths_px = targets.boxes_cxcywh_norm * size_px
        a = self.assign(targets, truths_px, self.coder, raw)
        boxes_px = truths_px[a.truth]
        xy, wh = self.coder.encode(
            boxes_px, level=a.level, anchor=a.anchor, row=a.row, column=a.column
        )
        found = _raw_of_pairs(raw, targets.image_index[a.truth], a)
        return PlacedTruths(a, truths_px, boxes_px, targets.labels[a.truth], found, xy, wh)

    def terms(
        self, raw: Sequence[Tensor], targets: Targets, images_seen: int | None
    ) -> dict[str, Tensor]:
        """Of L maps (B, A, H, W, 5 + K); small boxes count up to twice."""
        placed = self.place(raw, targets)
        t, owns = placed.raw, placed.assignment.owns.float()  # (P, 5 + K), (P,)
        small = 2 - targets.boxes_cxcywh_norm[:, 2:].prod(dim=1)  # (T,)
        box_scale = owns * self.coord_scale * small[placed.assignment.truth]
        xy = self.xy_loss(t[:, :2], placed.xy).sum(dim=1)  # (P,)
        wh = half_square(t[:, 2:4] - placed.wh).sum(dim=1)  # (P,)
        objectness = self.object_loss(t[:, 4], placed)  # (P,)
        classes = self.class_loss(t[:, 5:], placed)  # (P,)
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
        a = placed.assignment
        objectness = [full_precision(values[..., 4]).sigmoid().flatten() for values in raw]
        return GridMatches(
            objectness=torch.cat(objectness),
            owned=torch.cat([owned.flatten() for owned in a.owned]),
            class_logits=placed.raw[:, 5:],
            labels=placed.labels,
            counted=a.owns,
            placed=~(a.dropped | targets.ignored),
            dropped=a.dropped,
        )

    def _no_object(self, raw: Sequence[Tensor], targets: Targets, placed: PlacedTruths) -> Tensor:
        """Objectness loss of the anchors that own nothing and are not ignored."""
        padded = pad_truths(targets, placed.truths_cxcywh_px, len(raw[0]), self.ignore_threshold)
        total = full_precision(raw[0].new_zeros(()))
        for level, (values, owned) in enumerate(zip(raw, placed.assignment.owned, strict=True)):
            with torch.no_grad():
                without_loss = ignore_mask(self.coder.level_boxes(values, level), padded) | owned
            loss = self.no_object_loss(full_precision(values[..., 4]))  # (B, A, H, W)
            total = total + loss.masked_fill(without_loss, 0.0).sum()
        return total


def _raw_of_pairs(raw: Sequence[Tensor], image: Tensor, assignment: Assignment) -> Tensor:
    """The raw output at the anchor of each pair: float32 (P, 5 + K).

    Every level is read at P places, its own pairs' or place 0, so that no shape depends on how
    the pairs spread over the levels.
    """
    places = (image, assignment.anchor, assignment.row, assignment.column)
    rows = []
    for level, values in enumerate(raw):
        here = assignment.level == level
        found = values[tuple(torch.where(here, index, 0) for index in places)]  # (P, 5 + K)
        rows.append(full_precision(found).where(here[:, None], 0.0))
    return torch.stack(rows).sum(dim=0)  # (L, P, 5 + K) -> (P, 5 + K)
