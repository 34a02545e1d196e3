"""Darknet-19, the encoder of YOLOv2 (https://arxiv.org/abs/1612.08242)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from yolo.layer_records import LayerList, MaxPool, list_in_a_row
from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import UNIT_RANGE, ConvBlock

STAGES = (
    (32,),  # stride 1
    (64,),  # 2
    (128, 64, 128),  # 4
    (256, 128, 256),  # 8
    (512, 256, 512, 256, 512),  # 16
    (1024, 512, 1024, 512, 1024),  # 32
)
"""Channels of the convolutions of each stage, 3x3 and 1x1 in turns: table 6 of the paper."""


def darknet19() -> Darknet19:
    """Build the encoder with random weights."""
    return Darknet19()


class Darknet19(Encoder):
    """Table 6 of the paper without its classifier and pooling: 18 convolutions.

    A stage ends before its max pooling; so do the maps that a detector reads.
    """

    preprocessing = UNIT_RANGE

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        inputs = (3, *(stage[-1] for stage in STAGES[:-1]))
        self.stages = nn.ModuleList(
            convolutions(in_channels, channels)
            for in_channels, channels in zip(inputs, STAGES, strict=True)
        )
        self.out_channels = (STAGES[3][-1], STAGES[4][-1], STAGES[5][-1])

    def forward(self, images: Tensor) -> EncoderMaps:
        """Normalised (B, 3, S, S) -> 256, 512 and 1024 channels at strides 8, 16 and 32."""
        x = self.stages[0](images)
        for stage in self.stages[1:3]:
            x = stage(self.pool(x))
        stride8 = self.stages[3](self.pool(x))
        stride16 = self.stages[4](self.pool(stride8))
        stride32 = self.stages[5](self.pool(stride16))
        return stride8, stride16, stride32

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        """Write itself in Darknet's order. Returns the indices of the three maps."""
        ends: list[int] = []
        for stage in self.stages:
            if ends:
                layers.add(MaxPool(size=2, stride=2))
            ends.append(list_in_a_row(layers, stage.children()))
        return ends[3], ends[4], ends[5]


def convolutions(in_channels: int, channels: tuple[int, ...]) -> nn.Sequential:
    """3x3 and 1x1 in turns."""
    return nn.Sequential(
        *(
            ConvBlock(before, after, kernel_size=1 if index % 2 else 3)
            for index, (before, after) in enumerate(pairwise((in_channels, *channels)))
        )
    )
