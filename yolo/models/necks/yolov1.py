"""YOLOv1's neck: the last four convolutions, down to one map at stride 64."""

from __future__ import annotations

from torch import Tensor, nn

from yolo.errors import UserError
from yolo.models.layers import ConvBlock, scale_channels
from yolo.models.necks.neck import Neck, NeckWidth, width_factor

PAPER_CHANNELS = 1024
"""Of all four convolutions, and of the encoder's map at stride 32."""


class YOLOv1Neck(Neck):
    """The four 3x3 convolutions that the paper adds to its encoder (section 2.2, figure 3).

    The second has stride 2: an image of 448 px becomes 7 x 7 cells. ``scaled`` goes by the
    encoder's channels at stride 32, 1024 in Extraction; there are at least 32.
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
        """The encoder's maps -> one map (B, C, S / 64, S / 64).

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
