"""Raw maps to boxes and back: each generation's box parametrisation.

With t the raw output, (column, row) the cell and (pw, ph) the anchor, YOLOv2 and YOLOv3 mean
(YOLOv2 section 2, figure 3), in pixels::

    bx = (sigmoid(tx) + column) * stride        bw = pw * exp(tw)
    by = (sigmoid(ty) + row) * stride           bh = ph * exp(th)

where with ``scale_xy`` s, s * sigmoid(t) - (s - 1) / 2 stands for sigmoid(t): centres on the border
of a cell become reachable (https://arxiv.org/abs/2004.10934, section 4.3; Darknet's ``scale_x_y``),
and YOLOv1 with S cells per side (section 2; Darknet's ``detection_layer.c``), relative to the
image, from linear outputs::

    bx = (tx + column) / S                      bw = tw ** 2
    by = (ty + row) / S                         bh = th ** 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from yolo.boxes import cxcywh_to_xyxy

# No raw output, however large, decodes to infinity:
MAX_LOG_SIZE = 10.0  # sizes stop at exp(10) = 22,026 anchors,
MAX_RAW = 1e4  # and YOLOv1's raw numbers at this

BOX_FIELDS = 5  # of YOLOv1: x, y, w, h, confidence


def full_precision(tensor: Tensor) -> Tensor:
    """float32 of a shorter format, which autocast gives; float32 and float64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class AnchorCoder(nn.Module):
    """Decode raw maps of anchors and encode boxes into them.

    Args:
        anchors_px: (L, A, 2) widths and heights in pixels of the network's input, for L raw maps.
        stride_px: pixels per cell of each raw map.
        class_activation: ``sigmoid`` for independent classes, ``softmax`` for exclusive ones.
        scale_xy: how many cells a centre can move; half of what is above 1 lies on each side.
    """

    anchors_px: Tensor
    strides: Tensor

    def __init__(
        self,
        *,
        anchors_px: Sequence[Sequence[Sequence[float]]],
        stride_px: Sequence[int],
        class_activation: Literal["sigmoid", "softmax"] = "sigmoid",
        scale_xy: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_buffer("anchors_px", torch.tensor(anchors_px, dtype=torch.float32))
        self.register_buffer("strides", torch.tensor(stride_px), persistent=False)
        self.stride_px = tuple(stride_px)
        self.class_activation = class_activation
        self.scale_xy, self.margin = scale_xy, (scale_xy - 1) / 2
        assert self.anchors_px.ndim == 3 and len(self.anchors_px) == len(self.stride_px)

    def forward(self, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode L maps (B, A, H, W, 5 + K): x, y, w, h, objectness, classes.

        Returns:
            Boxes float32 (B, N, 4) xyxy in pixels of the network's input, and scores float32
            (B, N, K), objectness times class probability; N runs over level, anchor, row, column.
        """
        boxes = [self.level_boxes(values, level).flatten(1, 3) for level, values in enumerate(raw)]
        scores = [self._scores(values).flatten(1, 3) for values in raw]
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)

    def level_boxes(self, raw: Tensor, level: int) -> Tensor:
        """Boxes of one raw map. (B, A, H, W, 5 + K) -> xyxy pixels (B, A, H, W, 4), float32."""
        values = full_precision(raw[..., :4])
        rows, columns = (
            torch.arange(side, device=raw.device, dtype=torch.float32) for side in raw.shape[2:4]
        )
        corners = columns - self.margin, rows[:, None] - self.margin
        x, y = (  # (B, A, H, W)
            torch.add(corners[i], values[..., i].sigmoid(), alpha=self.scale_xy) for i in (0, 1)
        )
        centre = torch.stack((x, y), dim=-1) * self.stride_px[level]
        anchors = self.anchors_px[level].view(1, -1, 1, 1, 2)  # (A, 2) -> (1, A, 1, 1, 2)
        return _corners(centre, values[..., 2:], anchors)

    def boxes_in_cells(self, raw: Tensor, *, level: Tensor, anchor: Tensor) -> Tensor:
        """Boxes of single places with the anchors int64 (T,). (T, 4 or more) -> (T, 4), float32.

        Corners in pixels from the upper left one of the cell: small numbers keep tiny boxes exact.
        """
        values = full_precision(raw[:, :4])
        within = values[:, :2].sigmoid() * self.scale_xy - self.margin  # (T, 2)
        centre = within * self.strides[level][:, None]
        return _corners(centre, values[:, 2:], self.anchors_px[level, anchor])

    def corners_in_cells(
        self, boxes_cxcywh_px: Tensor, *, level: Tensor, row: Tensor, column: Tensor
    ) -> Tensor:
        """Boxes (T, 4) as ``boxes_in_cells`` gives those of the places int64 (T,): (T, 4)."""
        corner = torch.stack((column, row), dim=1) * self.strides[level][:, None]  # (T, 2)
        centre = boxes_cxcywh_px[:, :2] - corner
        return cxcywh_to_xyxy(torch.cat((centre, boxes_cxcywh_px[:, 2:]), dim=1))

    def encode(
        self, boxes_cxcywh_px: Tensor, *, level: Tensor, anchor: Tensor, row: Tensor, column: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the network should answer for boxes (T, 4) at the places int64 (T,).

        That is sigmoid(tx, ty), 0..1, for the nearest centre that it can reach: (T, 2); and
        (tw, th) as (T, 2).
        """
        stride = self.strides[level]  # (T,)
        centre = boxes_cxcywh_px[:, :2] / stride[:, None] - torch.stack((column, row), dim=1)
        within = ((centre + self.margin) / self.scale_xy).clamp(0, 1)
        anchors = self.anchors_px[level, anchor]  # (T, 2)
        smallest = torch.finfo(torch.float32).tiny
        return within, (boxes_cxcywh_px[:, 2:] / anchors).clamp(min=smallest).log()

    def _scores(self, raw: Tensor) -> Tensor:
        """(B, A, H, W, 5 + K) -> (B, A, H, W, K), float32."""
        classes = full_precision(raw[..., 5:])
        softmax = self.class_activation == "softmax"
        classes = classes.softmax(dim=-1) if softmax else classes.sigmoid()
        return full_precision(raw[..., 4:5]).sigmoid() * classes


class GridCoder(nn.Module):
    """Decode YOLOv1's raw map of S * S ``cells`` with n ``boxes`` each, and encode boxes into it.

    The network's input has S * ``stride_px`` pixels a side.
    """

    def __init__(self, *, cells: int, boxes: int, stride_px: int = 64) -> None:
        super().__init__()
        self.cells, self.boxes = cells, boxes
        self.size_px = cells * stride_px

    def forward(self, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode one map (B, S, S, n * 5 + K), as ``AnchorCoder``; N runs over row, column, box.

        A score is confidence times class, as in Darknet. Both are unbounded there, and two negative
        ones would make a good score: here a negative one and NaN count as 0, and 1 is the highest.
        """
        (values,) = raw
        boxes, classes = self.split(full_precision(values))
        confidence = _bounded(boxes[..., 4:]).clamp(min=0)  # (B, S, S, n, 1)
        classes = _bounded(classes).clamp(min=0).unsqueeze(3)  # (B, S, S, 1, K)
        scores = (confidence * classes).clamp(max=1)  # (B, S, S, n, K)
        return self.boxes_xyxy_px(boxes).flatten(1, 3), scores.flatten(1, 3)

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """A cell's boxes and classes, views. (..., n * 5 + K) -> (..., n, 5), (..., K).

        A map has x, y, w, h and confidence of one box after the other, then the classes.
        """
        numbers = self.boxes * BOX_FIELDS
        return raw[..., :numbers].unflatten(-1, (self.boxes, BOX_FIELDS)), raw[..., numbers:]

    def boxes_xyxy_px(self, boxes: Tensor) -> Tensor:
        """Boxes of a whole map. (B, S, S, n, 4 or more) -> xyxy pixels (B, S, S, n, 4), float32."""
        assert boxes.shape[1:3] == (self.cells, self.cells), "another grid than the coder's"
        cxcywh = self.boxes_in_cell(full_precision(boxes))
        at = torch.arange(self.cells, device=boxes.device, dtype=torch.float32) / self.cells
        corner = torch.zeros_like(cxcywh[:1])  # (1, S, S, n, 4)
        corner[..., 0] = at[:, None]  # columns: (S, 1) -> (1, S, S, n)
        corner[..., 1] = at[:, None, None]  # rows: (S, 1, 1) -> (1, S, S, n)
        return cxcywh_to_xyxy((cxcywh + corner) * self.size_px)

    def boxes_in_cell(self, boxes: Tensor) -> Tensor:
        """Raw (..., 4 or more) -> cxcywh (..., 4) of the image, from the corner of the cell."""
        values = _bounded(boxes[..., :4])
        return torch.cat((values[..., :2] / self.cells, values[..., 2:].square()), dim=-1)

    def encode(self, boxes_cxcywh_norm: Tensor, *, row: Tensor, column: Tensor) -> Tensor:
        """What the network should answer for boxes (T, 4) at the cells int64 (T,).

        That is the centre within its cell, 0..1, and the square roots of width and height: (T, 4).
        """
        cell = torch.stack((column, row), dim=1)  # (T, 2)
        centre = boxes_cxcywh_norm[:, :2] * self.cells - cell
        return torch.cat((centre, boxes_cxcywh_norm[:, 2:].clamp(min=0).sqrt()), dim=1)


def _corners(centre: Tensor, log_size: Tensor, anchors_px: Tensor) -> Tensor:
    """(..., 2), (..., 2) and anchors that fit them -> xyxy (..., 4)."""
    half = log_size.clamp(max=MAX_LOG_SIZE).exp() * (anchors_px / 2)  # (..., 2)
    return torch.cat((centre - half, centre + half), dim=-1)


def _bounded(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.0).clamp(-MAX_RAW, MAX_RAW)
