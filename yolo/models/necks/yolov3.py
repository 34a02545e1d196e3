"""YOLOv3's neck: a feature pyramid, coarse to fine."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from yolo.models.layers import ConvBlock, scale_channels

PAPER_CHANNELS = (128, 256, 512)
"""Channels that leave the neck at strides 8, 16 and 32 (Darknet's ``yolov3.cfg``)."""

NeckWidth = Literal["paper", "scaled"] | float


class YOLOv3Neck(nn.Module):
    """Section 2.3 of the YOLOv3 paper (https://arxiv.org/abs/1804.02767).

    At each scale five convolutions make the map that the head reads. It also goes down the pyramid:
    through a 1x1 convolution, upsampled to twice the size, in front of the encoder's finer map.

    Args:
        in_channels: channels of the encoder's maps at strides 8, 16 and 32.
        width: ``paper``; ``scaled``, which multiplies the paper's channels with the encoder's at
            stride 16 over Darknet-53's 512; or a factor on the paper's channels. Other widths than
            the paper's are rounded to a multiple of 8, at least 32.

    Attributes:
        out_channels: channels of the three maps, strides 8, 16 and 32.
    """

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        self.out_channels = _out_channels(in_channels, width)
        in8, in16, in32 = in_channels
        out8, out16, out32 = self.out_channels
        self.stride32 = five_convs(in32, out32)
        self.up32 = upsample(out32, out16)
        self.stride16 = five_convs(out16 + in16, out16)
        self.up16 = upsample(out16, out8)
        self.stride8 = five_convs(out8 + in8, out8)

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


def _out_channels(in_channels: tuple[int, int, int], width: NeckWidth) -> tuple[int, int, int]:
    if width == "paper":
        return PAPER_CHANNELS
    factor = in_channels[1] / 512 if width == "scaled" else float(width)
    out8, out16, out32 = (scale_channels(c, factor, at_least=32) for c in PAPER_CHANNELS)
    return out8, out16, out32
