"""YOLOv3's necks: a feature pyramid, coarse to fine; with spatial pyramid pooling; the tiny one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from yolo.darknet.cfg import LayerList, MaxPool, Route, Upsample
from yolo.models.layers import ConvBlock, scale_channels
from yolo.models.necks.neck import Neck, NeckWidth, width_factor

PAPER_CHANNELS = (128, 256, 512)
"""Channels that leave the neck at strides 8, 16 and 32 (Darknet's ``yolov3.cfg``)."""

TINY_CHANNELS = (128, 256)
"""Channels of the way up and of the map at stride 32: layers 18 and 13 of ``yolov3-tiny.cfg``."""

SPP_SIZES = (5, 9, 13)
"""Windows of the pooling in Darknet's ``yolov3-spp.cfg``, in cells of stride 32."""


class YOLOv3Neck(Neck):
    """Section 2.3 of the YOLOv3 paper (https://arxiv.org/abs/1804.02767).

    At each scale five convolutions make the map that the head reads. It also goes down the pyramid:
    through a 1x1 convolution, upsampled to twice the size, in front of the encoder's finer map.
    """

    strides_px = (8, 16, 32)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        in8, in16, in32 = in_channels
        factor = width_factor(width, in16)
        out8, out16, out32 = (scale_channels(c, factor, at_least=32) for c in PAPER_CHANNELS)
        self.out_channels = (out8, out16, out32)
        self.head_channels = (2 * out8, 2 * out16, 2 * out32)
        self.stride32 = self._coarsest(in32, out32)
        self.up32 = _upsample(out32, out16)
        self.stride16 = _five_convs(out16 + in16, out16)
        self.up16 = _upsample(out16, out8)
        self.stride8 = _five_convs(out8 + in8, out8)

    def _coarsest(self, in_channels: int, out_channels: int) -> nn.Sequential:
        return _five_convs(in_channels, out_channels)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's maps -> maps of the same sizes, in the same order."""
        encoder8, encoder16, encoder32 = maps
        out32 = self.stride32(encoder32)
        out16 = self.stride16(torch.cat((self.up32(out32), encoder16), dim=1))
        out8 = self.stride8(torch.cat((self.up16(out16), encoder8), dim=1))
        return out8, out16, out32

    def list_levels(self, layers: LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        encoder8, encoder16, encoder32 = maps
        layers.go_on_from(encoder32)
        out32 = layers.add_all(self.stride32)
        yield 2
        layers.add(Route((_list_upsample(layers, self.up32, out32), encoder16)))
        out16 = layers.add_all(self.stride16)
        yield 1
        layers.add(Route((_list_upsample(layers, self.up16, out16), encoder8)))
        layers.add_all(self.stride8)
        yield 0


class YOLOv3SPPNeck(YOLOv3Neck):
    """YOLOv3's neck with spatial pyramid pooling among the convolutions at stride 32.

    Darknet's ``yolov3-spp.cfg``; after https://arxiv.org/abs/1406.4729, with windows of fixed size.
    """

    def _coarsest(self, in_channels: int, out_channels: int) -> nn.Sequential:
        first, wide, gather, *rest = _five_convs(in_channels, out_channels)
        mix = ConvBlock((1 + len(SPP_SIZES)) * out_channels, out_channels, kernel_size=1)
        return nn.Sequential(first, wide, gather, SpatialPyramidPool(), mix, *rest)


class SpatialPyramidPool(nn.Module):
    """The largest value around each cell in windows of several sizes, beside the cell's own."""

    def __init__(self) -> None:
        super().__init__()
        smallest = SPP_SIZES[0]
        self.pool = nn.MaxPool2d(smallest, stride=1, padding=smallest // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 C, H, W), the largest window first, as in Darknet.

        The largest in 9 x 9 cells is the largest in 5 x 5 of the largest in 5 x 5, and so on.
        """
        pooled = [x]
        for _ in SPP_SIZES:
            pooled.append(self.pool(pooled[-1]))
        return torch.cat(pooled[::-1], dim=1)

    def list_layers(self, layers: LayerList) -> int:
        source = len(layers) - 1
        pooled = []
        for size in SPP_SIZES:
            layers.go_on_from(source)
            pooled.append(layers.add(MaxPool(size=size, stride=1)))
        return layers.add(Route((*reversed(pooled), source)))


class YOLOv3TinyNeck(Neck):
    """Layers 13 and 17 to 20 of Darknet's ``yolov3-tiny.cfg``; the map at stride 8 is not used.

    At stride 16 the way up and the encoder's map meet without a convolution: the head's first one
    mixes them.
    """

    strides_px = (16, 32)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        _, in16, in32 = in_channels
        factor = width_factor(width, in16)
        up16, out32 = (scale_channels(c, factor, at_least=32) for c in TINY_CHANNELS)
        self.out_channels = (up16 + in16, out32)
        self.head_channels = (2 * up16, 2 * out32)
        self.stride32 = ConvBlock(in32, out32, kernel_size=1)
        self.up32 = _upsample(out32, up16)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The encoder's maps -> maps at strides 16 and 32."""
        _, encoder16, encoder32 = maps
        out32 = self.stride32(encoder32)
        return torch.cat((self.up32(out32), encoder16), dim=1), out32

    def list_levels(self, layers: LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        _, encoder16, encoder32 = maps
        layers.go_on_from(encoder32)
        out32 = self.stride32.list_layers(layers)
        yield 1
        layers.add(Route((_list_upsample(layers, self.up32, out32), encoder16)))
        yield 0


def _five_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 and 3x3 in turns: the 1x1 gather what the 3x3 spread over twice the channels."""
    wide = 2 * out_channels
    return nn.Sequential(
        ConvBlock(in_channels, out_channels, kernel_size=1),
        ConvBlock(out_channels, wide, kernel_size=3),
        ConvBlock(wide, out_channels, kernel_size=1),
        ConvBlock(out_channels, wide, kernel_size=3),
        ConvBlock(wide, out_channels, kernel_size=1),
    )


def _upsample(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, then every cell four times."""
    return nn.Sequential(
        ConvBlock(in_channels, out_channels, kernel_size=1),
        nn.Upsample(scale_factor=2, mode="nearest"),
    )


def _list_upsample(layers: LayerList, up: nn.Sequential, source: int) -> int:
    """Add a way up that starts at the layer ``source``. Returns the index of its last layer."""
    layers.go_on_from(source)
    layers.add_all([up[0]])
    return layers.add(Upsample(stride=2))
