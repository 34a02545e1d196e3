"""YOLOv1's loss, as Darknet trains it (``detection_layer.c``).

Darknet computes the negative gradient ``delta``; here ``d loss / d raw = -delta / images``. Every
term is half a squared error of the linear outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo.boxes import cxcywh_to_xyxy, pairwise_iou
from yolo.detection.assign import assign_first_in_cell
from yolo.detection.coders import GridCoder, full_precision
from yolo.detection.losses.loss import Loss, half_square, ignore_mask, pad_truths
from yolo.records import GridMatches, Targets

UNREACHABLE_IOU = 2.0  # overlap with a truth ignores no box, only an ignored region does


@dataclass(frozen=True, slots=True)
class CellTruths:
    """T truths, each beside the output of its cell and of the box there that is responsible."""

    owns: Tensor  # bool (T,), the truths that own their cell
    raw: Tensor  # float32 (T, 5), the responsible box
    target: Tensor  # (T, 4), what its first four numbers should be
    overlap: Tensor  # (T,), the best IoU of a box of the cell with the truth
    logits: Tensor  # float32 (T, K), the classes of the cell
    owned: Tensor  # bool (B, S, S, n), the boxes responsible for a truth that owns its cell


class YOLOv1Loss(Loss):
    """The five terms of YOLOv1, each times its scale.

    - ``xy``: of the centre within its cell
    - ``wh``: of the square roots of width and height
    - ``object``: of the confidence of the responsible box, whose target is its IoU with the truth
      (a constant for the gradient; 1 without ``rescore``)
    - ``no_object``: of the confidence of all other boxes but those mainly in an ignored region
    - ``class``: of the K classes of every cell that owns a truth

    The first truth in a cell wins, later ones are left out. The responsible box of a cell is the
    one of best IoU with the truth, or the nearest by root mean square error where none overlaps.
    """

    def __init__(
        self,
        *,
        coder: GridCoder,
        coord_scale: float = 5.0,
        object_scale: float = 1.0,
        no_object_scale: float = 0.5,
        class_scale: float = 1.0,
        rescore: bool = True,
    ) -> None:
        super().__init__()
        self.coder = coder
        self.coord_scale, self.object_scale = coord_scale, object_scale
        self.no_object_scale, self.class_scale = no_object_scale, class_scale
        self.rescore = rescore

    def terms(
        self, raw: Sequence[Tensor], targets: Targets, images_seen: int | None
    ) -> dict[str, Tensor]:
        """Of one map (B, S, S, n * 5 + K)."""
        values = full_precision(raw[0])
        placed = self.place(values, targets)
        owns, overlap, logits = placed.owns, placed.overlap, placed.logits
        labels = torch.zeros_like(logits).scatter(1, targets.labels[:, None], 1.0)  # (T, K)
        confidence = overlap if self.rescore else torch.ones_like(overlap)  # (T,)
        coordinates = half_square(placed.raw[:, :4] - placed.target) * owns[:, None]  # (T, 4)
        objects = half_square(placed.raw[:, 4] - confidence) * owns  # (T,)
        classes = half_square(logits - labels) * owns[:, None]  # (T, K)
        return {
            "xy": self.coord_scale * coordinates[:, :2].sum(),
            "wh": self.coord_scale * coordinates[:, 2:].sum(),
            "object": self.object_scale * objects.sum(),
            "class": self.class_scale * classes.sum(),
            "no_object": self.no_object_scale * self._no_object(values, targets, placed),
        }

    @torch.no_grad()
    def matches(self, raw: Sequence[Tensor], targets: Targets) -> GridMatches:
        """Raw outputs at the places with and without a truth, for the accuracy of the grid."""
        values = full_precision(raw[0])
        placed = self.place(values, targets)
        return GridMatches(
            objectness=self.coder.split(values)[0][..., 4].flatten(),
            owned=placed.owned.flatten(),
            class_logits=placed.logits,
            labels=targets.labels,
            counted=placed.owns,
            placed=placed.owns,
            dropped=~(placed.owns | targets.ignored),
        )

    def place(self, values: Tensor, targets: Targets) -> CellTruths:
        """Assign T truths to the cells of a map (B, S, S, n * 5 + K), and encode them there."""
        coder = self.coder
        a = assign_first_in_cell(targets, cells=coder.cells, images=len(values))
        boxes, logits = coder.split(values[targets.image_index, a.row, a.column])  # (T, n, 5)
        target = coder.encode(targets.boxes_cxcywh_norm, row=a.row, column=a.column)
        box, overlap = self._choose_box(boxes, target)
        raw = boxes.gather(1, box.view(-1, 1, 1).expand(-1, 1, boxes.shape[2])).squeeze(1)

        total = values[..., 0].numel() * coder.boxes  # B * S * S * n
        place = torch.where(a.owns, a.cell * coder.boxes + box, total)  # one more takes the others
        owned = torch.zeros(total + 1, dtype=torch.bool, device=values.device)
        owned = owned.scatter_(0, place, True)[:-1].view(*values.shape[:3], coder.boxes)
        return CellTruths(a.owns, raw, target, overlap, logits, owned)

    @torch.no_grad()
    def _choose_box(self, boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Which box of its cell each truth gets, and the best IoU. (T, n, 5), (T, 4) -> (T,)."""
        found = self.coder.boxes_in_cell(boxes)  # (T, n, 4)
        truth = self.coder.boxes_in_cell(target[:, None])  # (T, 1, 4)
        overlaps = pairwise_iou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(truth)).squeeze(2)  # (T, n)
        distance = (found - truth).square().sum(dim=2)  # (T, n)
        most, best = overlaps.max(dim=1)
        return torch.where(most > 0, best, distance.argmin(dim=1)), most

    def _no_object(self, values: Tensor, targets: Targets, placed: CellTruths) -> Tensor:
        """The loss of boxes that are responsible for nothing and lie in no ignored region."""
        boxes, _ = self.coder.split(values)  # (B, S, S, n, 5)
        with torch.no_grad():
            truths_px = targets.boxes_cxcywh_norm * self.coder.size_px
            padded = pad_truths(targets, truths_px, len(values), UNREACHABLE_IOU)
            without_loss = ignore_mask(self.coder.boxes_xyxy_px(boxes), padded) | placed.owned
        return half_square(boxes[..., 4]).masked_fill(without_loss, 0.0).sum()
