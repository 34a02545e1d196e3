"""What YOLOv2 and YOLOv3 share: assign truths to anchors, encode them, sum the terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from yolo.boxes import IouKind, iou_loss, pairwise_iou
from yolo.detection.assign import Assign, Assignment, assign_best_anchor, raw_at
from yolo.detection.coders import AnchorCoder, full_precision
from yolo.detection.losses.loss import Loss, half_square, ignore_mask, pad_truths
from yolo.records import GridMatches, Targets

BoxLoss = Literal["darknet"] | IouKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSettings:
    """What the losses of both generations are told; the defaults are Darknet's in YOLOv3.

    ``box`` chooses Darknet's terms ``xy`` and ``wh``, in which small boxes count up to twice, or
    one term ``box`` in their place, ``iou_loss``, in which they do not (as in AlexeyAB's Darknet,
    ``delta_yolo_box``). The scales are factors on the terms (AlexeyAB's ``iou_normalizer``, then
    ``obj_normalizer`` for both of objectness).
    """

    assign: Assign = assign_best_anchor  # which anchors learn which truth
    ignore_threshold: float = 0.7  # an anchor without truth has no loss above this IoU with any
    box: BoxLoss = "darknet"
    coord_scale: float = 1.0
    object_scale: float = 1.0
    no_object_scale: float = 1.0
    class_scale: float = 1.0
    rescore: bool = False  # the target of objectness is the predicted box's IoU with its truth
    label_smoothing: float = 0.0  # share of a truth's class that is given up


@dataclass(frozen=True, slots=True)
class PlacedTruths:
    """P pairs of a truth and an anchor, each beside the output of the anchor."""

    assignment: Assignment
    truths_cxcywh_px: Tensor  # float32 (T, 4), all truths in pixels of the network's input
    corners_px: Tensor  # float32 (P, 4), each pair's truth as xyxy from the corner of its cell
    labels: Tensor  # int64 (P,)
    raw: Tensor  # float32 (P, 5 + K), the output at the anchors
    xy: Tensor  # (P, 2), what sigmoid(tx, ty) should be
    wh: Tensor  # (P, 2), what (tw, th) should be


class AnchorLoss(Loss):
    """A loss of maps of anchors; a generation defines the losses of single numbers."""

    xy_loss: Callable[[Tensor, Tensor], Tensor]  # of sigmoid(logits) against a target, (P, 2) all
    object_loss: Callable[[Tensor, Tensor], Tensor]  # of objectness against a target, (P,) all
    no_object_loss: Callable[[Tensor], Tensor]  # of objectness where no truth is, any shape
    class_loss: Callable[[Tensor, PlacedTruths], Tensor]  # at truths, (P, K) -> (P,)

    def __init__(self, coder: AnchorCoder, settings: AnchorSettings) -> None:
        super().__init__()
        self.coder, self.settings = coder, settings

    def place(self, raw: Sequence[Tensor], targets: Targets) -> PlacedTruths:
        """Assign T truths to the anchors of maps (B, A, H, W, 5 + K), and encode them there."""
        size_px = torch.empty(4, device=raw[0].device)  # filled there: nothing waits for a copy
        size_px[0::2] = raw[0].shape[3] * self.coder.stride_px[0]  # width
        size_px[1::2] = raw[0].shape[2] * self.coder.stride_px[0]  # height
        truths_px = targets.boxes_cxcywh_norm * size_px
        a = self.settings.assign(targets, truths_px, self.coder, raw)
        boxes_px, cell = truths_px[a.truth], {"level": a.level, "row": a.row, "column": a.column}
        corners_px = self.coder.corners_in_cells(boxes_px, **cell)
        xy, wh = self.coder.encode(boxes_px, anchor=a.anchor, **cell)
        place = (a.level, a.anchor, a.row, a.column)
        found = raw_at(raw, targets.image_index[a.truth], place)
        return PlacedTruths(a, truths_px, corners_px, targets.labels[a.truth], found, xy, wh)

    def terms(
        self, raw: Sequence[Tensor], targets: Targets, images_seen: int | None
    ) -> dict[str, Tensor]:
        """Of L maps (B, A, H, W, 5 + K)."""
        settings, placed = self.settings, self.place(raw, targets)
        t, owns = placed.raw, placed.assignment.owns.float()  # (P, 5 + K), (P,)
        target = self._overlaps(placed) if settings.rescore else torch.ones_like(t[:, 4])  # (P,)
        objectness = self.object_loss(t[:, 4], target)  # (P,)
        classes = self.class_loss(t[:, 5:], placed)  # (P,)
        return {
            **self._box_terms(targets, placed, owns * settings.coord_scale),
            "object": settings.object_scale * (objectness * owns).sum(),
            "class": settings.class_scale * (classes * owns).sum(),
            "no_object": settings.no_object_scale * self._no_object(raw, targets, placed),
            **self.own_terms(raw, placed, images_seen),
        }

    def own_terms(
        self, raw: Sequence[Tensor], placed: PlacedTruths, images_seen: int | None
    ) -> dict[str, Tensor]:
        """What a generation adds to the terms that both have."""
        return {}

    def _box_terms(
        self, targets: Targets, placed: PlacedTruths, scale: Tensor
    ) -> dict[str, Tensor]:
        """Of position and size, times the factors (P,)."""
        if self.settings.box != "darknet":
            loss = iou_loss(self.settings.box, self._found(placed), placed.corners_px)  # (P,)
            return {"box": (loss * scale).sum()}
        small = 2 - targets.boxes_cxcywh_norm[:, 2:].prod(dim=1)  # (T,)
        scale = scale * small[placed.assignment.truth]
        xy = self.xy_loss(placed.raw[:, :2], placed.xy).sum(dim=1)  # (P,)
        wh = half_square(placed.raw[:, 2:4] - placed.wh).sum(dim=1)  # (P,)
        return {"xy": (xy * scale).sum(), "wh": (wh * scale).sum()}

    def _found(self, placed: PlacedTruths) -> Tensor:
        """The boxes predicted for the truths, as ``placed.corners_px``."""
        a = placed.assignment
        return self.coder.boxes_in_cells(placed.raw, level=a.level, anchor=a.anchor)

    @torch.no_grad()
    def _overlaps(self, placed: PlacedTruths) -> Tensor:
        """The IoU of each truth with the box predicted for it: (P,)."""
        found, truths = self._found(placed)[:, None], placed.corners_px[:, None]  # (P, 1, 4)
        return pairwise_iou(found, truths)[:, 0, 0]  # (P, 1, 1) -> (P,)

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
        threshold = self.settings.ignore_threshold
        padded = pad_truths(targets, placed.truths_cxcywh_px, len(raw[0]), threshold)
        total = full_precision(raw[0].new_zeros(()))
        for level, (values, owned) in enumerate(zip(raw, placed.assignment.owned, strict=True)):
            with torch.no_grad():
                without_loss = ignore_mask(self.coder.level_boxes(values, level), padded) | owned
            loss = self.no_object_loss(full_precision(values[..., 4]))  # (B, A, H, W)
            total = total + loss.masked_fill(without_loss, 0.0).sum()
        return total
