"""The anchor parametrisation of YOLOv2 and YOLOv3 (YOLOv2 section 2, figure 3).

With t the raw output, (cx, cy) the cell and (pw, ph) the anchor::

    bx = (sigmoid(tx) + cx) * stride        bw = pw * exp(tw)
    by = (sigmoid(ty) + cy) * stride        bh = ph * exp(th)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from yolo.detection.full_precision import full_precision

MAX_LOG_SIZE = 10.0
"""Sizes stop at exp(10) = 22,026 anchors: no raw output, however wild, becomes infinite."""


class AnchorCoder(nn.Module):
    """Decode raw maps of anchors and encode boxes into them.

    Args:
        anchors_px: (L, A, 2) widths and heights in pixels of the network's input, one row of
            anchors for each raw map.
        stride_px: pixels per cell of each of the L raw maps.
        class_activation: ``sigmoid`` for independent classes, ``softmax`` for exclusive ones.
    """

    anchors_px: Tensor
    strides: Tensor

    def __init__(
        self,
        *,
        anchors_px: Sequence[Sequence[Sequence[float]]],
        stride_px: Sequence[int],
        class_activation: Literal["sigmoid", "softmax"] = "sigmoid",
    ) -> None:
        super().__init__()
        self.register_buffer("anchors_px", torch.tensor(anchors_px, dtype=torch.float32))
        self.register_buffer("strides", torch.tensor(stride_px), persistent=False)
        self.stride_px = tuple(stride_px)
        self.class_activation = class_activation
        assert self.anchors_px.ndim == 3 and len(self.anchors_px) == len(self.stride_px)

    def forward(self, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode whole maps.

        Args:
            raw: L tensors (B, A, H, W, 5 + K): x, y, w, h, objectness, classes.

        Returns:
            Boxes float32 (B, N, 4) xyxy in pixels of the network's input, and scores float32
            (B, N, K), objectness times class probability; N runs over level, anchor, row, column.
        """
        boxes = [self.level_boxes(values, level).flatten(1, 3) for level, values in enumerate(raw)]
        scores = [self._scores(values).flatten(1, 3) for values in raw]
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)

    def level_boxes(self, raw: Tensor, level: int) -> Tensor:
        """Boxes of one raw map. (B, A, H, W, 5 + K) -> xyxy pixels (B, A, H, W, 4), float32."""
        _, _, height, width, _ = raw.shape
        values = full_precision(raw[..., :4])
        rows = torch.arange(height, device=raw.device, dtype=torch.float32)
        columns = torch.arange(width, device=raw.device, dtype=torch.float32)
        anchors = self.anchors_px[level].view(1, -1, 1, 1, 2)  # (A, 2) -> (1, A, 1, 1, 2)
        x = values[..., 0].sigmoid() + columns  # (B, A, H, W)
        y = values[..., 1].sigmoid() + rows[:, None]  # (B, A, H, W)
        half = values[..., 2:].clamp(max=MAX_LOG_SIZE).exp() * (anchors / 2)  # (B, A, H, W, 2)
        centre = torch.stack((x, y), dim=-1) * self.stride_px[level]
        return torch.cat((centre - half, centre + half), dim=-1)

    def encode(
        self, boxes_cxcywh_px: Tensor, *, level: Tensor, anchor: Tensor, row: Tensor, column: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the network should say for boxes that an anchor of a cell owns.

        Args:
            boxes_cxcywh_px: float32 (T, 4), pixels of the network's input.
            level, anchor, row, column: int64 (T,), the owning anchor and cell.

        Returns:
            The centre within its cell (T, 2), 0..1, which sigmoid(tx, ty) should equal; and
            (tw, th) as (T, 2).
        """
        stride = self.strides[level]  # (T,)
        centre = boxes_cxcywh_px[:, :2] / stride[:, None] - torch.stack((column, row), dim=1)
        anchors = self.anchors_px[level, anchor]  # (T, 2)
        smallest = torch.finfo(torch.float32).tiny
        return centre, (boxes_cxcywh_px[:, 2:] / anchors).clamp(min=smallest).log()

    def boxes_in_cells(self, rows: Tensor, *, level: Tensor, anchor: Tensor) -> Tensor:
        """Boxes of single places, seen from their cell: small numbers, so tiny boxes stay exact.

        Args:
            rows: (T, 4) or more, the raw output at each place.
            level, anchor: int64 (T,), the anchor of each place.

        Returns:
            Corners in pixels from the upper left corner of the cell, float32 (T, 4).
        """
        values = full_precision(rows[:, :4])
        centre = values[:, :2].sigmoid() * self.strides[level][:, None]  # (T, 2)
        half = values[:, 2:].clamp(max=MAX_LOG_SIZE).exp() * (self.anchors_px[level, anchor] / 2)
        return torch.cat((centre - half, centre + half), dim=-1)

    def _scores(self, raw: Tensor) -> Tensor:
        """(B, A, H, W, 5 + K) -> (B, A, H, W, K), float32."""
        objectness = full_precision(raw[..., 4:5]).sigmoid()
        classes = full_precision(raw[..., 5:])
        if self.class_activation == "softmax":
            return objectness * classes.softmax(dim=-1)
        return objectness * classes.sigmoid()
