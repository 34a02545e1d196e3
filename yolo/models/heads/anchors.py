"""The heads with anchors, YOLOv2's and YOLOv3's: raw boxes, objectness and classes for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolo.darknet.cfg import BOX_FIELDS, Convolution, LayerList, Region, Yolo
from yolo.models.layers import ConvBlock

OBJECTNESS = 4
"""Index of the objectness among the numbers of a box, which stand in Darknet's order."""

YOLOV3_OBJECTNESS = 0.01
"""The objectness that every box starts with."""

YOLOV2_OBJECTNESS = 0.1
"""The same in YOLOv2, where it is learnt by squared error on the sigmoid, whose gradient fades with
the sigmoid's slope s(1 - s) at both ends. From 0.01 a box with an object would learn nine times
slower than from 0.1; from Darknet's one half the many empty boxes would start with fourteen times
the gradient."""


class YOLOv2Head(nn.Module):
    """One 1x1 convolution with bias to A anchors, the paper's 5 (Darknet's ``yolov2.cfg``)."""

    def __init__(
        self, *, in_channels: tuple[int, ...], anchors_per_cell: int, classes: int
    ) -> None:
        super().__init__()
        (channels,) = in_channels
        self.anchors_per_cell, self.classes = anchors_per_cell, classes
        self.output = _output(channels, anchors_per_cell, classes, YOLOV2_OBJECTNESS)

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """One map (B, C, H, W) -> one raw map (B, A, H, W, 5 + K)."""
        (stride32,) = maps
        return [_by_anchor(self.output(stride32), self.anchors_per_cell)]

    def list_level(self, layers: LayerList, level: int) -> None:
        assert level == 0
        layers.add(Convolution(self.output, norm=None, activation="linear"))
        layers.add(Region(anchors=self.anchors_per_cell, classes=self.classes, stride_px=32))


class YOLOv3Head(nn.Module):
    """Independent outputs (sections 2.1 to 2.3 of the paper), one per scale.

    YOLOv3 and YOLOv3-SPP have three, YOLOv3-tiny has two.

    Args:
        in_channels: of the neck's maps, fine to coarse.
        hidden_channels: of the 3x3 convolution at each scale.
        strides_px: pixels per cell; they name the scales, ``stride8`` and so on.
        anchors_per_cell: A; the paper's 3.
        classes: K.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        hidden_channels: Sequence[int],
        strides_px: Sequence[int],
        anchors_per_cell: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.anchors_per_cell, self.classes = anchors_per_cell, classes
        for stride, channels, hidden in zip(strides_px, in_channels, hidden_channels, strict=True):
            self.add_module(f"stride{stride}", _Scale(channels, hidden, anchors_per_cell, classes))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, H, W) -> raw maps (B, A, H, W, 5 + K) in the same order."""
        return [scale(x) for scale, x in zip(self.children(), maps, strict=True)]

    def list_level(self, layers: LayerList, level: int) -> None:
        """Add the layers of one scale, behind the neck's map."""
        scales, per_cell = list(self.children()), self.anchors_per_cell
        scale = scales[level]
        assert isinstance(scale, _Scale)
        scale.conv.list_layers(layers)
        layers.add(Convolution(scale.output, norm=None, activation="linear"))
        mask = tuple(range(level * per_cell, (level + 1) * per_cell))
        layers.add(Yolo(mask=mask, anchors=per_cell * len(scales), classes=self.classes))


class _Scale(nn.Module):
    """One 3x3 convolution, one 1x1 to A * (5 + K) numbers per cell."""

    def __init__(
        self, in_channels: int, hidden_channels: int, anchors_per_cell: int, classes: int
    ) -> None:
        super().__init__()
        self.anchors_per_cell = anchors_per_cell
        self.conv = ConvBlock(in_channels, hidden_channels, kernel_size=3)
        self.output = _output(hidden_channels, anchors_per_cell, classes, YOLOV3_OBJECTNESS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, A, H, W, 5 + K)."""
        return _by_anchor(self.output(self.conv(x)), self.anchors_per_cell)


def _output(in_channels: int, anchors: int, classes: int, objectness: float) -> nn.Conv2d:
    """A 1x1 convolution with bias to A * (5 + K) numbers per cell, the last layer.

    Darknet starts this layer like all others, and without bias: about half of all boxes then begin
    as objects, and unlearning that is all that the first steps do. Here every box starts close to
    its anchor, at the centre of its cell, with one low objectness: small weights and a bias, after
    the RetinaNet paper (https://arxiv.org/abs/1708.02002, section 4.1).
    """
    fields = BOX_FIELDS + classes
    conv = nn.Conv2d(in_channels, anchors * fields, kernel_size=1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias.zero_()
        conv.bias.view(anchors, fields)[:, OBJECTNESS] = -math.log(1 / objectness - 1)
    return conv


def _by_anchor(channels: Tensor, anchors: int) -> Tensor:
    """The last layer's channels, box by box. (B, A * (5 + K), H, W) -> (B, A, H, W, 5 + K).

    They hold one anchor after the other, as Darknet's do. The result is a view: in channels-last
    memory each box's numbers lie side by side.
    """
    raw = channels.unflatten(1, (anchors, -1))  # (B, A, 5 + K, H, W)
    return raw.permute(0, 1, 3, 4, 2)  # (B, A, H, W, 5 + K)
