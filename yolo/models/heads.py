"""Heads: turn a neck's maps into the raw predictions that a coder decodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.darknet.cfg import BOX_FIELDS, Convolution, LayerList, Region, Yolo
from yolo.errors import UserError
from yolo.models.layers import LEAKY_SLOPE, ConvBlock

OBJECTNESS = 4
"""Index of the objectness among the numbers of a box, which stand in Darknet's order."""

YOLOV3_OBJECTNESS = 0.01
"""The objectness that every box starts with."""

YOLOV2_OBJECTNESS = 0.1
"""The same in YOLOv2, where it is learnt by squared error on the sigmoid, whose gradient fades with
the sigmoid's slope s(1 - s) at both ends. From 0.01 a box with an object would learn nine times
slower than from 0.1; from Darknet's one half the many empty boxes would start with fourteen times
the gradient."""

YOLOV1_XYWH = (0.5, 0.5, 0.5, 0.5)
"""Every box starts in the middle of its cell, with a quarter of the image's width and height,
of which these are the square roots."""

YOLOV1_NORM = 0.1
"""Length, at the start, of the weights that lead to one output."""


class YOLOv2Head(nn.Module):
    """One 1x1 convolution with bias to A anchors, the paper's 5 (Darknet's ``yolov2.cfg``)."""

    def __init__(
        self, *, in_channels: tuple[int, ...], anchors_per_cell: int, classes: int
    ) -> None:
        super().__init__()
        (channels,) = in_channels
        self.anchors_per_cell, self.classes = anchors_per_cell, classes
        self.output = _output(channels, anchors_per_cell, BOX_FIELDS + classes, YOLOV2_OBJECTNESS)

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """One map (B, C, H, W) -> one raw map (B, A, H, W, 5 + K)."""
        (stride32,) = maps
        return [_by_anchor(self.output(stride32), self.anchors_per_cell)]

    def list_level(self, layers: LayerList, level: int) -> None:
        assert level == 0
        layers.add(Convolution(self.output, norm=None, activation="linear"))
        layers.add(Region(anchors=self.anchors_per_cell, classes=self.classes, stride_px=32))


class YOLOv3Head(nn.Module):
    """Independent outputs (sections 2.1 to 2.3 of the paper), one per scale, fine to coarse.

    YOLOv3 and YOLOv3-SPP have three scales, YOLOv3-tiny has two, with 3 anchors each in the papers.
    ``strides_px`` name them, ``stride8`` and so on; ``hidden_channels`` are those of the 3x3
    convolution at each. Of ``decoupled`` scales all branches are as wide as the first of these.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        hidden_channels: Sequence[int],
        strides_px: Sequence[int],
        anchors_per_cell: int,
        classes: int,
        decoupled: bool = False,
    ) -> None:
        super().__init__()
        self.anchors_per_cell, self.classes = anchors_per_cell, classes
        for stride, channels, hidden in zip(strides_px, in_channels, hidden_channels, strict=True):
            make, width = (_DecoupledScale, hidden_channels[0]) if decoupled else (_Scale, hidden)
            self.add_module(f"stride{stride}", make(channels, width, anchors_per_cell, classes))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, H, W) -> raw maps (B, A, H, W, 5 + K) in the same order."""
        return [scale(x) for scale, x in zip(self.children(), maps, strict=True)]

    def list_level(self, layers: LayerList, level: int) -> None:
        scales, per_cell = list(self.children()), self.anchors_per_cell
        layers.add_all([scales[level]])
        mask = tuple(range(level * per_cell, (level + 1) * per_cell))
        layers.add(Yolo(mask=mask, anchors=per_cell * len(scales), classes=self.classes))


class _Scale(nn.Module):
    """One 3x3 convolution to ``width`` channels, one 1x1 to A * (5 + K) numbers per cell."""

    def __init__(self, in_channels: int, width: int, anchors_per_cell: int, classes: int) -> None:
        super().__init__()
        self.anchors_per_cell = anchors_per_cell
        self.conv = ConvBlock(in_channels, width, kernel_size=3)
        self.output = _output(width, anchors_per_cell, BOX_FIELDS + classes, YOLOV3_OBJECTNESS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, A, H, W, 5 + K)."""
        return _by_anchor(self.output(self.conv(x)), self.anchors_per_cell)

    def list_layers(self, layers: LayerList) -> int:
        self.conv.list_layers(layers)
        return layers.add(Convolution(self.output, norm=None, activation="linear"))


class _DecoupledScale(nn.Module):
    """YOLOX's (https://arxiv.org/abs/2107.08430, figure 2): classes apart from box and objectness.

    A 1x1 convolution, then for each of the two branches two 3x3 and an output, all ``width`` wide.
    """

    def __init__(self, in_channels: int, width: int, anchors_per_cell: int, classes: int) -> None:
        super().__init__()
        self.anchors_per_cell = anchors_per_cell
        self.stem = ConvBlock(in_channels, width, kernel_size=1)
        self.box_branch, self.class_branch = (
            nn.Sequential(*(ConvBlock(width, width, kernel_size=3) for _ in range(2)))
            for _ in range(2)
        )
        self.box_output = _output(width, anchors_per_cell, BOX_FIELDS, YOLOV3_OBJECTNESS)
        self.class_output = _output(width, anchors_per_cell, classes, None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, A, H, W, 5 + K)."""
        x = self.stem(x)
        outputs = self.box_output(self.box_branch(x)), self.class_output(self.class_branch(x))
        return torch.cat([_by_anchor(each, self.anchors_per_cell) for each in outputs], dim=-1)

    def list_layers(self, layers: LayerList) -> int:
        raise UserError(
            "files of Darknet cannot hold a decoupled head, whose boxes and classes come from two "
            "layers; leave decoupled off, or take only the encoder's weights from such a file"
        )


def _output(in_channels: int, anchors: int, fields: int, objectness: float | None) -> nn.Conv2d:
    """A 1x1 convolution with bias to A * ``fields`` numbers per cell, the last layer.

    Darknet starts this layer like all others, and without bias: about half of all boxes then begin
    as objects, and unlearning that is all that the first steps do. Here every box starts close to
    its anchor, at the centre of its cell, with one low objectness: small weights and a bias, after
    the RetinaNet paper (https://arxiv.org/abs/1708.02002, section 4.1).
    """
    conv = nn.Conv2d(in_channels, anchors * fields, kernel_size=1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias.zero_()
        if objectness is not None:
            conv.bias.view(anchors, fields)[:, OBJECTNESS] = -math.log(1 / objectness - 1)
    return conv


def _by_anchor(channels: Tensor, anchors: int) -> Tensor:
    """The last layer's channels, box by box. (B, A * (5 + K), H, W) -> (B, A, H, W, 5 + K).

    They hold one anchor after the other, as Darknet's do. The result is a view: in channels-last
    memory each box's numbers lie side by side.
    """
    return channels.unflatten(1, (anchors, -1)).permute(0, 1, 3, 4, 2)


class YOLOv1Head(nn.Module):
    """The layers after the last convolution (section 2.1): each number sees the whole image.

    The last layer's rows stand in Darknet's order, so its weights are Darknet's by a plain copy:
    the classes of all cells (S, S, K), the confidences of all boxes (S, S, n), then all boxes
    (S, S, n, 4), x, y, w, h. ``forward`` brings together what belongs to a cell.

    The outputs are linear. How far a step of the optimizer moves one of them grows with the squares
    of the 12,544 numbers that lead to it, and with the squares of their weights times the 9,216
    numbers behind each. So both start small (``LocallyConnected``, whose start the fully connected
    layer shares, and ``YOLOV1_NORM``): from He's start, training diverges at the rates of Darknet's
    schedule. The biases make every box one guess (``YOLOV1_XYWH``) without confidence or class.
    Darknet starts the last layer uniform within sqrt(2 / fan-in), its biases at 0.

    Args:
        cells: S.
        boxes: n, boxes per cell; 2 in the paper, 3 in Darknet's cfg.
        end: before the last layer, Darknet's locally connected one (``yolov1.cfg``), or the fully
            connected one of the paper's figure 3.
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
            local = LocallyConnected(in_channels[0], 256, cells=cells)
            self.hidden = nn.Sequential(local, activation, nn.Flatten())
            features = 256 * cells * cells  # in Darknet's order: channel, row, column
        else:
            features = 4096
            linear = nn.Linear(in_channels[0] * cells * cells, features)
            bound = math.sqrt(2 / linear.in_features) / cells
            nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.zeros_(linear.bias)
            self.hidden = nn.Sequential(nn.Flatten(), linear, activation)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(features, cells * cells * (boxes * 5 + classes))
        nn.init.normal_(self.output.weight, std=YOLOV1_NORM / math.sqrt(features))
        with torch.no_grad():
            self.output.bias.zero_()
            _, _, xywh = self._by_kind(self.output.bias)
            xywh += xywh.new_tensor(YOLOV1_XYWH)

    def forward(self, maps: tuple[Tensor]) -> list[Tensor]:
        """One map (B, C, S, S) -> one raw map (B, S, S, n * 5 + K).

        Of each cell x, y, w, h and confidence of one box after the other, then the classes.
        """
        (x,) = maps
        height, width = x.shape[2:]
        if (height, width) != (self.cells, self.cells):
            built = 64 * self.cells
            raise UserError(
                f"images of {64 * width} x {64 * height} px: this YOLOv1 was built for "
                f"{built} x {built} px alone ({self.cells} x {self.cells} cells); use that size."
            )
        classes, confidence, xywh = self._by_kind(self.output(self.dropout(self.hidden(x))))
        boxes = torch.cat((xywh, confidence), dim=-1)  # (B, S, S, n, 5)
        return [torch.cat((boxes.flatten(3), classes), dim=-1)]  # (B, S, S, n * 5 + K)

    def _by_kind(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Darknet's (..., S * S * (K + n + n * 4)) -> (..., S, S, K), (..., n, 1), (..., n, 4)."""
        cells, boxes = self.cells, self.boxes
        shapes = (self.classes,), (boxes, 1), (boxes, 4)
        parts = flat.split([cells * cells * math.prod(shape) for shape in shapes], dim=-1)
        classes, confidence, xywh = (
            part.unflatten(-1, (cells, cells, *shape))
            for part, shape in zip(parts, shapes, strict=True)
        )
        return classes, confidence, xywh


class LocallyConnected(nn.Module):
    """Darknet's ``[local]``: a convolution with its own weights and bias at every place of the map.

    Its window is 3x3, its stride 1, and the padding keeps the size. The weights stand as Darknet
    stores them, so each is the other's by a plain copy: ``weight`` (S * S, out, in * 9), with the
    places row by row and the last axis over channel, row and column of the window; ``bias``
    (out * S * S), channel by channel.

    Weights start uniform within sqrt(2 / fan-in) / S. Darknet fills the first place alone, without
    the S, and leaves the others at 0: here they share what that one has, so that the sum of squares
    over the map starts the same. The map has S = ``cells`` rows and columns.
    """

    kernel_size = 3

    def __init__(self, in_channels: int, out_channels: int, *, cells: int) -> None:
        super().__init__()
        self.out_channels, self.cells = out_channels, cells
        window = in_channels * self.kernel_size**2
        self.weight = nn.Parameter(torch.empty(cells * cells, out_channels, window))
        self.bias = nn.Parameter(torch.zeros(out_channels * cells * cells))
        bound = math.sqrt(2 / window) / cells
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, S, S) -> (B, out, S, S): all places in one call that reads the weights once."""
        windows = F.unfold(x, self.kernel_size, padding=self.kernel_size // 2)  # (B, in * 9, S*S)
        result = torch.bmm(self.weight, windows.permute(2, 1, 0))  # (S*S, out, B)
        bias = self.bias.view(self.out_channels, -1)  # (out, S*S)
        result = result.permute(2, 1, 0) + bias  # (B, out, S*S)
        return result.unflatten(2, (self.cells, self.cells))  # (B, out, S, S)
