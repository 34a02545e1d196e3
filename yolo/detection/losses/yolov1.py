"""YOLOv1's loss, as Darknet trains it (``detection_layer.c``).

Darknet writes its negative gradient ``delta``; this loss has that very gradient:
``d loss / d raw = -delta / images``. Every term is half a squared error of the linear outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolo.boxes import cxcywh_to_xyxy, pairwise_iou
from yolo.detection.assign.first_in_cell import CellAssignment, assign_first_in_cell
from yolo.detection.coders.grid import GridCoder
from yolo.detection.full_precision import full_precision
from yolo.detection.losses.truths import covered, pad_truths
from yolo.records import GridMatches, Targets

NO_BOX_REACHES = 2.0
"""An IoU: overlap with a truth excuses no box here, an ignored region does."""


class YOLOv1Loss(nn.Module):
    """The five terms of YOLOv1, each summed over the images and divided by those of the step.

    - ``xy``: of the centre within its cell, times ``coord_scale``
    - ``wh``: of the square roots of width and height, times ``coord_scale``
    - ``object``: of the confidence of the responsible box, whose target is its IoU with the truth
      (1 without ``rescore``), times ``object_scale``
    - ``no_object``: of the confidence of all other boxes, times ``no_object_scale``, except those
      that lie mainly in an ignored region
    - ``class``: of the K classes of every cell that owns a truth, times ``class_scale``

    The first truth in a cell wins, later ones are left out. The responsible box of a cell is the
    one of best IoU with the truth, or the nearest by root mean square error where none overlaps.

    Args:
        coder: decodes and encodes boxes.
        coord_scale, object_scale, no_object_scale, class_scale: factors on the terms.
        rescore: whether the target of the confidence is the IoU; it is a constant for the gradient.
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
        self.coord_scale = coord_scale
        self.object_scale = object_scale
        self.no_object_scale = no_object_scale
        self.class_scale = class_scale
        self.rescore = rescore

    def forward(
        self,
        raw: Sequence[Tensor],
        targets: Targets,
        images_in_step: int,
        images_seen: int | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms in float32, whatever precision ``raw`` has.

        Args:
            raw: one (B, S, S, n * 5 + K).
            targets: the truth of the B images.
            images_in_step: images of the whole optimizer step, over all micro-batches and ranks.
            images_seen: not looked at.

        Returns:
            Scalars by term; their sum is the loss.
        """
        (values,) = raw
        with torch.autocast(values.device.type, enabled=False):
            values = full_precision(values)
            assignment = self._assign(values, targets)
            boxes, logits = self._at_truths(values, targets, assignment)
            target = self._encode(targets, assignment)
            box, overlap = self._responsible(boxes, target)
            terms = self._owned_terms(_of_box(boxes, box), target, overlap, assignment.owns)
            terms["class"] = self._class(logits, targets, assignment.owns)
            owned = self._owned(values, assignment, box)
            terms["no_object"] = self._no_object(values, targets, owned)
            return {name: term / images_in_step for name, term in terms.items()}

    @torch.no_grad()
    def matches(self, raw: Sequence[Tensor], targets: Targets) -> GridMatches:
        """What the accuracies of a grid are counted from; the confidence is the raw one."""
        (values,) = raw
        values = full_precision(values)
        assignment = self._assign(values, targets)
        boxes, logits = self._at_truths(values, targets, assignment)
        box, _ = self._responsible(boxes, self._encode(targets, assignment))
        return GridMatches(
            objectness=self.coder.split(values)[0][..., 4].flatten(),
            owned=self._owned(values, assignment, box).flatten(),
            class_logits=logits,
            labels=targets.labels,
            counted=assignment.owns,
            dropped=~(assignment.owns | targets.ignored),
        )

    def _assign(self, values: Tensor, targets: Targets) -> CellAssignment:
        return assign_first_in_cell(targets, cells=self.coder.cells, images=len(values))

    def _at_truths(
        self, values: Tensor, targets: Targets, assignment: CellAssignment
    ) -> tuple[Tensor, Tensor]:
        """What the cell of each truth says: its boxes (T, n, 5) and its classes (T, K)."""
        return self.coder.split(values[targets.image_index, assignment.row, assignment.column])

    def _encode(self, targets: Targets, assignment: CellAssignment) -> Tensor:
        """(T, 4), what the responsible box should say."""
        return self.coder.encode(
            targets.boxes_cxcywh_norm, row=assignment.row, column=assignment.column
        )

    @torch.no_grad()
    def _responsible(self, boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Which of its cell's boxes is responsible for each truth, and its IoU with it.

        Args:
            boxes: raw (T, n, 5).
            target: (T, 4), encoded.

        Returns:
            int64 (T,) and float32 (T,).
        """
        found = self.coder.boxes_in_cell(boxes)  # (T, n, 4)
        truth = self.coder.boxes_in_cell(target[:, None])  # (T, 1, 4)
        overlaps = pairwise_iou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(truth)).squeeze(2)  # (T, n)
        distance = (found - truth).square().sum(dim=2)  # (T, n)
        most, best = overlaps.max(dim=1)
        return torch.where(most > 0, best, distance.argmin(dim=1)), most

    def _owned_terms(
        self, boxes: Tensor, target: Tensor, overlap: Tensor, owns: Tensor
    ) -> dict[str, Tensor]:
        """The terms of the responsible boxes. (T, 5), (T, 4), (T,), (T,)."""
        confidence = overlap if self.rescore else torch.ones_like(overlap)
        coordinates = _half_square(boxes[:, :4] - target) * owns[:, None]  # (T, 4)
        objects = _half_square(boxes[:, 4] - confidence) * owns  # (T,)
        return {
            "xy": self.coord_scale * coordinates[:, :2].sum(),
            "wh": self.coord_scale * coordinates[:, 2:].sum(),
            "object": self.object_scale * objects.sum(),
        }

    def _class(self, logits: Tensor, targets: Targets, owns: Tensor) -> Tensor:
        """Squared error against the one label of each cell that owns a truth."""
        labels = torch.zeros_like(logits).scatter(1, targets.labels[:, None], 1.0)  # (T, K)
        return self.class_scale * (_half_square(logits - labels) * owns[:, None]).sum()

    def _owned(self, values: Tensor, assignment: CellAssignment, box: Tensor) -> Tensor:
        """The boxes that are responsible for a truth: bool (B, S, S, n)."""
        shape = (*values.shape[:3], self.coder.boxes)
        total = shape[0] * shape[1] * shape[2] * shape[3]
        place = torch.where(assignment.owns, assignment.cell * self.coder.boxes + box, total)
        owned = torch.zeros(total + 1, dtype=torch.bool, device=values.device)
        return owned.scatter_(0, place, True)[:-1].view(shape)

    def _no_object(self, values: Tensor, targets: Targets, owned: Tensor) -> Tensor:
        """Confidence of the boxes that are responsible for nothing and are not excused."""
        boxes, _ = self.coder.split(values)  # (B, S, S, n, 5)
        with torch.no_grad():
            truths_px = targets.boxes_cxcywh_norm * self.coder.size_px
            regions = pad_truths(targets, truths_px, len(values), NO_BOX_REACHES)
            found = self.coder.boxes_xyxy_px(boxes).flatten(1, 3)  # (B, N, 4)
            excused = covered(found, *regions).view(owned.shape) | owned
        loss = _half_square(boxes[..., 4]).masked_fill(excused, 0.0)
        return self.no_object_scale * loss.sum()


def _half_square(error: Tensor) -> Tensor:
    return error.square() / 2


def _of_box(boxes: Tensor, box: Tensor) -> Tensor:
    """One box of each cell. (T, n, 5), (T,) -> (T, 5)."""
    return boxes.gather(1, box.view(-1, 1, 1).expand(-1, 1, boxes.shape[2])).squeeze(1)
