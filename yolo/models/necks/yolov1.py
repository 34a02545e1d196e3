"""YOLOv1's neck: the last four convolutions, down to one map at stride 64."""

from __future__ import annotations

from torch import Tensor, nn

from yolo.errors import UserError
from yolo.models.layers import ConvBlock, scale_channels
from yolo.models.necks.neck import Neck
from yolo.models.necks.width import NeckWidth, width_factor

PAPER_CHANNELS = 1024
"""Of all four convolutions, and of the encoder's map at stride 32."""


class YOLOv1Neck(Neck):
    """The four 3x3 convolutions that the paper adds to its encoder (section 2.2, figure 3).

    The second has stride 2: an image of 448 px becomes 7 x 7 cells.

    Args:
        in_channels: channels of the encoder's maps at strides 8, 16 and 32; the last is read.
        width: ``paper``; ``scaled``, which multiplies the paper's channels with the encoder's at
            stride 32 over Extraction's 1024; or a factor on the paper's channels. Other widths than
            the paper's are rounded to a multiple of 8, at least 32.

    Attributes:
        out_channels: channels of the one map.
        strides_px: its stride.
    """

    strides_px = (64,)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        factor = width_factor(width, in_channels[2], PAPER_CHANNELS)
        channels = scale_channels(PAPER_CHANNELS, factor, at_least=32)
        self.out_channels = (channels,)
        self.convs = nn.Sequential(
            ConvBlock(in_channels[2], channels, kernel_size=3),
            ConvBlock(channels, channels, kernel_size=3, stride=2),
            ConvBlock(channels, channels, kernel_size=3),
            ConvBlock(channels, channels, kernel_size=3),
        )

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor]:
        """Halve the coarsest map.

        Args:
            maps: the encoder's, (B, C, S / stride, S / stride) at strides 8, 16, 32; S a multiple
                of 64.

        Returns:
            One map (B, C, S / 64, S / 64).

        Raises:
            UserError: S is no multiple of 64; the cells would not cover it evenly.
        """
        height, width = maps[2].shape[2:]
        if height % 2 or width % 2:
            raise UserError(
                f"images of {32 * width} x {32 * height} px: YOLOv1 works at multiples of 64 px; "
                f"use the size that the model was trained at."
            )
        return (self.convs(maps[2]),)
