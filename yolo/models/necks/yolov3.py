"""YOLOv3's neck: a feature pyramid, coarse to fine; with or without spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from yolo.darknet.layer_records import LayerList, MaxPool, Route, Upsample, list_in_a_row
from yolo.models.layers import ConvBlock, scale_channels
from yolo.models.necks.neck import Neck
from yolo.models.necks.width import STRIDE16_CHANNELS, NeckWidth, width_factor

PAPER_CHANNELS = (128, 256, 512)
"""Channels that leave the neck at strides 8, 16 and 32 (Darknet's ``yolov3.cfg``)."""

SPP_SIZES = (5, 9, 13)
"""Windows of the pooling in Darknet's ``yolov3-spp.cfg``, in cells of stride 32."""


class YOLOv3Neck(Neck):
    """Section 2.3 of the YOLOv3 paper (https://arxiv.org/abs/1804.02767).

    At each scale five convolutions make the map that the head reads. It also goes down the pyramid:
    through a 1x1 convolution, upsampled to twice the size, in front of the encoder's finer map.

    Args:
        in_channels: channels of the encoder's maps at strides 8, 16 and 32.
        width: ``paper``; ``scaled``, which multiplies the paper's channels with the encoder's at
            stride 16 over Darknet-53's 512; or a factor on the paper's channels. Other widths than
            the paper's are rounded to a multiple of 8, at least 32.

    Attributes:
        strides_px: of the maps that leave it.
        out_channels: channels of the three maps, strides 8, 16 and 32.
        head_channels: channels of the head's hidden layer at each.
    """

    strides_px = (8, 16, 32)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        in8, in16, in32 = in_channels
        factor = width_factor(width, in16, STRIDE16_CHANNELS)
        out8, out16, out32 = (scale_channels(c, factor, at_least=32) for c in PAPER_CHANNELS)
        self.out_channels = (out8, out16, out32)
        self.head_channels = (2 * out8, 2 * out16, 2 * out32)
        self.stride32 = self._coarsest(in32, out32)
        self.up32 = upsample(out32, out16)
        self.stride16 = five_convs(out16 + in16, out16)
        self.up16 = upsample(out16, out8)
        self.stride8 = five_convs(out8 + in8, out8)

    def _coarsest(self, in_channels: int, out_channels: int) -> nn.Sequential:
        return five_convs(in_channels, out_channels)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Mix the scales.

        Args:
            maps: the encoder's, (B, C, S / stride, S / stride) at strides 8, 16, 32; S a multiple
                of 32.

        Returns:
            ``out_channels`` maps of the same sizes, in the same order.
        """
        encoder8, encoder16, encoder32 = maps
        out32 = self.stride32(encoder32)
        out16 = self.stride16(torch.cat((self.up32(out32), encoder16), dim=1))
        out8 = self.stride8(torch.cat((self.up16(out16), encoder8), dim=1))
        return out8, out16, out32

    def list_levels(self, layers: LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        """Write itself in Darknet's order, in which the head's part of a level follows the neck's.

        Args:
            layers: what the encoder wrote; the neck's layers are added level by level.
            maps: the encoder's maps, as indices of layers.

        Yields:
            The index in ``out_channels`` of a level, when the last layer is its map.
        """
        encoder8, encoder16, encoder32 = maps
        layers.go_on_from(encoder32)
        out32 = list_in_a_row(layers, self.stride32)
        yield 2
        layers.add(Route((list_upsample(layers, self.up32, out32), encoder16)))
        out16 = list_in_a_row(layers, self.stride16)
        yield 1
        layers.add(Route((list_upsample(layers, self.up16, out16), encoder8)))
        list_in_a_row(layers, self.stride8)
        yield 0


class YOLOv3SPPNeck(YOLOv3Neck):
    """YOLOv3's neck with spatial pyramid pooling among the convolutions at stride 32.

    Darknet's ``yolov3-spp.cfg``; after https://arxiv.org/abs/1406.4729, with windows of fixed size.
    """

    def _coarsest(self, in_channels: int, out_channels: int) -> nn.Sequential:
        first, wide, gather, *rest = five_convs(in_channels, out_channels)
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
        """Write itself; the input is the last layer. Returns the index of its own last layer."""
        source = len(layers) - 1
        pooled = []
        for size in SPP_SIZES:
            layers.go_on_from(source)
            pooled.append(layers.add(MaxPool(size=size, stride=1)))
        return layers.add(Route((*reversed(pooled), source)))


def five_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 and 3x3 in turns: the 1x1 gather what the 3x3 spread over twice the channels."""
    wide = 2 * out_channels
    return nn.Sequential(
        ConvBlock(in_channels, out_channels, kernel_size=1),
        ConvBlock(out_channels, wide, kernel_size=3),
        ConvBlock(wide, out_channels, kernel_size=1),
        ConvBlock(out_channels, wide, kernel_size=3),
        ConvBlock(wide, out_channels, kernel_size=1),
    )


def upsample(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, then every cell four times."""
    return nn.Sequential(
        ConvBlock(in_channels, out_channels, kernel_size=1),
        nn.Upsample(scale_factor=2, mode="nearest"),
    )


def list_upsample(layers: LayerList, up: nn.Sequential, source: int) -> int:
    """Write a way up that starts at the layer ``source``. Returns the index of the last layer."""
    layers.go_on_from(source)
    list_in_a_row(layers, [up[0]])
    return layers.add(Upsample(stride=2))
