"""The grid parametrisation of YOLOv1 (section 2; Darknet's ``detection_layer.c``).

With t the raw output, linear and not squashed, (column, row) the cell and S the cells per side,
relative to the image::

    bx = (tx + column) / S        bw = tw ** 2
    by = (ty + row) / S           bh = th ** 2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolo.boxes import cxcywh_to_xyxy
from yolo.detection.full_precision import full_precision

LARGEST = 1e4
"""Raw numbers are taken for at most this: no output, however wild, decodes to infinity."""

BOX_FIELDS = 5
"""x, y, w, h, confidence: what a cell says of each box."""


class GridCoder(nn.Module):
    """Decode the raw map of a grid and encode boxes into it.

    Args:
        cells: S; the network's input has S * ``stride_px`` pixels a side.
        boxes: n, boxes per cell.
        stride_px: pixels per cell.
    """

    def __init__(self, *, cells: int, boxes: int, stride_px: int = 64) -> None:
        super().__init__()
        self.cells = cells
        self.boxes = boxes
        self.size_px = cells * stride_px

    def forward(self, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode the whole map.

        A score is confidence times class, as in Darknet. Both are unbounded there, and two negative
        ones would make a good score: here a negative one counts as 0, and a score is at most 1. A
        number that is none (NaN) counts as 0.

        Args:
            raw: one (B, S, S, n * 5 + K); see ``split``.

        Returns:
            Boxes float32 (B, N, 4) xyxy in pixels of the network's input, and scores float32
            (B, N, K), 0..1; N runs over row, column, box.
        """
        (values,) = raw
        boxes, classes = self.split(full_precision(values))
        confidence = _bounded(boxes[..., 4:]).clamp(min=0)  # (B, S, S, n, 1)
        classes = _bounded(classes).clamp(min=0).unsqueeze(3)  # (B, S, S, 1, K)
        scores = (confidence * classes).clamp(max=1)  # (B, S, S, n, K)
        return self.boxes_xyxy_px(boxes).flatten(1, 3), scores.flatten(1, 3)

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """What a cell says of its boxes and of its class.

        Args:
            raw: (..., n * 5 + K), x, y, w, h and confidence of one box after the other, then the
                classes.

        Returns:
            (..., n, 5) and (..., K), views.
        """
        numbers = self.boxes * BOX_FIELDS
        return raw[..., :numbers].unflatten(-1, (self.boxes, BOX_FIELDS)), raw[..., numbers:]

    def boxes_xyxy_px(self, boxes: Tensor) -> Tensor:
        """Boxes of a whole map. (B, S, S, n, 4 or more) -> xyxy pixels (B, S, S, n, 4), float32."""
        assert boxes.shape[1:3] == (self.cells, self.cells), "the grid that the coder was made for"
        cxcywh = self.boxes_in_cell(full_precision(boxes))
        at = torch.arange(self.cells, device=boxes.device, dtype=torch.float32) / self.cells
        corner = torch.zeros_like(cxcywh[:1])  # (1, S, S, n, 4)
        corner[..., 0] = at[:, None]  # columns: (S, 1) -> (1, S, S, n)
        corner[..., 1] = at[:, None, None]  # rows: (S, 1, 1) -> (1, S, S, n)
        return cxcywh_to_xyxy((cxcywh + corner) * self.size_px)

    def boxes_in_cell(self, boxes: Tensor) -> Tensor:
        """Boxes cxcywh relative to the image, the centre counted from the corner of the cell.

        (..., 4 or more), raw -> (..., 4).
        """
        values = _bounded(boxes[..., :4])
        return torch.cat((values[..., :2] / self.cells, values[..., 2:].square()), dim=-1)

    def encode(self, boxes_cxcywh_norm: Tensor, *, row: Tensor, column: Tensor) -> Tensor:
        """What the network should say for boxes that a cell owns.

        Args:
            boxes_cxcywh_norm: float32 (T, 4), relative to the network's input.
            row, column: int64 (T,), the owning cell.

        Returns:
            (T, 4): the centre within its cell, 0..1, and the square roots of width and height.
        """
        cell = torch.stack((column, row), dim=1)  # (T, 2)
        centre = boxes_cxcywh_norm[:, :2] * self.cells - cell
        return torch.cat((centre, boxes_cxcywh_norm[:, 2:].clamp(min=0).sqrt()), dim=1)


def _bounded(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.0).clamp(-LARGEST, LARGEST)
