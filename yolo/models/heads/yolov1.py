"""YOLOv1's head: all boxes of an image from its whole map at once."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.errors import UserError
from yolo.models.layers import LEAKY_SLOPE

STRIDE_PX = 64
"""Pixels of the image per cell."""

LOCAL_FILTERS = 256
"""Filters of the locally connected layer in Darknet's ``yolov1.cfg``."""

CONNECTED_FEATURES = 4096
"""Numbers that leave the first fully connected layer (figure 3 of the paper)."""

START_XYWH = (0.5, 0.5, 0.5, 0.5)
"""Every box starts in the middle of its cell, with a quarter of the image's width and height,
of which these are the square roots."""

START_NORM = 0.1
"""Length, at the start, of the weights that lead to one output."""


class YOLOv1Head(nn.Module):
    """The layers after the last convolution (section 2.1): linear numbers, S x S cells.

    Every number depends on the whole image, so the head works for S x S cells alone.

    The last layer's rows stand in Darknet's order, so its weights are Darknet's by a plain copy:
    the classes of all cells (S, S, K), the confidences of all boxes (S, S, n), then all boxes
    (S, S, n, 4), x, y, w, h. ``forward`` brings together what belongs to a cell.

    The outputs are linear. How far a step of the optimizer moves one of them grows with the squares
    of the 12,544 numbers that lead to it, and with the squares of their weights times the 9,216
    numbers behind each. So both start small (``LocallyConnected``, whose start the fully connected
    layer shares, and ``START_NORM``): from He's start, training diverges at the rates of Darknet's
    schedule. The biases make every box one guess (``START_XYWH``) without confidence or class.
    Darknet starts the last layer uniform within sqrt(2 / fan-in), its biases at 0.

    Args:
        in_channels: channels of the neck's one map.
        cells: S.
        boxes: n, boxes per cell; 2 in the paper, 3 in Darknet's cfg.
        classes: K.
        end: ``local``, Darknet's locally connected layer before the last; or ``connected``, the
            paper's fully connected one.
        dropout: share of the numbers that training leaves out before the last layer.
    """

    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        cells: int,
        boxes: int,
        classes: int,
        end: Literal["local", "connected"] = "local",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.cells, self.boxes, self.classes = cells, boxes, classes
        activation = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
        if end == "local":
            local = LocallyConnected(in_channels[0], LOCAL_FILTERS, cells=cells, kernel_size=3)
            self.hidden = nn.Sequential(local, activation, nn.Flatten())
            features = LOCAL_FILTERS * cells * cells  # in Darknet's order: channel, row, column
        else:
            features = CONNECTED_FEATURES
            linear = nn.Linear(in_channels[0] * cells * cells, features)
            bound = math.sqrt(2 / linear.in_features) / cells
            nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.zeros_(linear.bias)
            self.hidden = nn.Sequential(nn.Flatten(), linear, activation)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(features, cells * cells * (boxes * 5 + classes))
        nn.init.normal_(self.output.weight, std=START_NORM / math.sqrt(features))
        with torch.no_grad():
            self.output.bias.zero_()
            _, _, xywh = self._by_kind(self.output.bias)
            xywh += xywh.new_tensor(START_XYWH)

    def forward(self, maps: tuple[Tensor]) -> list[Tensor]:
        """One map (B, C, S, S) -> one raw map (B, S, S, n * 5 + K).

        Of each cell x, y, w, h and confidence of one box after the other, then the classes.

        Raises:
            UserError: the map has another size than the head was built for.
        """
        (x,) = maps
        height, width = x.shape[2:]
        if (height, width) != (self.cells, self.cells):
            built = STRIDE_PX * self.cells
            raise UserError(
                f"images of {STRIDE_PX * width} x {STRIDE_PX * height} px: this YOLOv1 was built "
                f"for {built} x {built} px alone ({self.cells} x {self.cells} cells); use that "
                f"size."
            )
        classes, confidence, xywh = self._by_kind(self.output(self.dropout(self.hidden(x))))
        boxes = torch.cat((xywh, confidence), dim=-1)  # (B, S, S, n, 5)
        return [torch.cat((boxes.flatten(3), classes), dim=-1)]  # (B, S, S, n * 5 + K)

    def _by_kind(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split Darknet's order. (..., S * S * (K + n + n * 4)) -> its three parts."""
        cells, boxes = self.cells, self.boxes
        places = cells * cells
        parts = flat.split((places * self.classes, places * boxes, places * boxes * 4), dim=-1)
        return (
            parts[0].unflatten(-1, (cells, cells, self.classes)),  # (..., S, S, K)
            parts[1].unflatten(-1, (cells, cells, boxes, 1)),  # (..., S, S, n, 1)
            parts[2].unflatten(-1, (cells, cells, boxes, 4)),  # (..., S, S, n, 4)
        )


class LocallyConnected(nn.Module):
    """Darknet's ``[local]``: a convolution with its own weights and bias at every place of the map.

    Its stride is 1 and the padding keeps the size. The weights stand as Darknet stores them, so
    each is the other's by a plain copy: ``weight`` (S * S, out, in * k * k), with the places row by
    row and the last axis over channel, row and column of the window; ``bias`` (out * S * S),
    channel by channel.

    Weights start uniform within sqrt(2 / fan-in) / S. Darknet fills the first place alone, without
    the S, and leaves the others at 0: here they share what that one has, so that the sum of squares
    over the map starts the same.

    Args:
        in_channels, out_channels: of the map and of the result.
        cells: S, height and width of the map.
        kernel_size: k, odd.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, cells: int, kernel_size: int
    ) -> None:
        super().__init__()
        assert kernel_size % 2 == 1, "an odd window has a middle"
        self.out_channels, self.cells, self.kernel_size = out_channels, cells, kernel_size
        window = in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.empty(cells * cells, out_channels, window))
        self.bias = nn.Parameter(torch.zeros(out_channels * cells * cells))
        bound = math.sqrt(2 / window) / cells
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, S, S) -> (B, out, S, S): all places in one call that reads the weights once."""
        windows = F.unfold(x, self.kernel_size, padding=self.kernel_size // 2)  # (B, in*k*k, S*S)
        result = torch.bmm(self.weight, windows.permute(2, 1, 0))  # (S*S, out, B)
        bias = self.bias.view(self.out_channels, -1)  # (out, S*S)
        result = result.permute(2, 1, 0) + bias  # (B, out, S*S)
        return result.unflatten(2, (self.cells, self.cells))  # (B, out, S, S)
