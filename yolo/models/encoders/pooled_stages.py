"""What Darknet-19 and Extraction share: stages of convolutions with max pooling between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from yolo.darknet.layer_records import LayerList, MaxPool, list_in_a_row
from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import UNIT_RANGE, ConvBlock

Stage = tuple[tuple[int, int], ...]
"""Channels and kernel size of each convolution."""


class PooledStages(Encoder):
    """Convolutions one after the other; max pooling halves the map between two stages.

    A stage ends before its max pooling; so do the maps that a detector reads, those of the last
    three stages.

    Args:
        stages: the last three are at strides 8, 16 and 32.
        first_stride: of the very first convolution.
    """

    preprocessing = UNIT_RANGE

    def __init__(self, stages: Sequence[Stage], *, first_stride: int = 1) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        ends = [stage[-1][0] for stage in stages]
        strides = (first_stride, *(1 for _ in stages[1:]))
        self.stages = nn.ModuleList(
            _convolutions(in_channels, stage, first_stride=stride)
            for in_channels, stage, stride in zip((3, *ends[:-1]), stages, strides, strict=True)
        )
        self.out_channels = (ends[-3], ends[-2], ends[-1])

    def forward(self, images: Tensor) -> EncoderMaps:
        """Normalised (B, 3, S, S) -> ``out_channels`` at strides 8, 16 and 32."""
        stride8 = self.stages[0](images)
        for stage in self.stages[1:-2]:
            stride8 = stage(self.pool(stride8))
        stride16 = self.stages[-2](self.pool(stride8))
        stride32 = self.stages[-1](self.pool(stride16))
        return stride8, stride16, stride32

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        """Write itself in Darknet's order. Returns the indices of the three maps."""
        ends: list[int] = []
        for stage in self.stages:
            if ends:
                layers.add(MaxPool(size=2, stride=2))
            ends.append(list_in_a_row(layers, stage.children()))
        return ends[-3], ends[-2], ends[-1]


def _convolutions(in_channels: int, stage: Stage, *, first_stride: int) -> nn.Sequential:
    inputs = (in_channels, *(channels for channels, _ in stage))
    return nn.Sequential(
        *(
            ConvBlock(before, after, kernel_size=size, stride=1 if index else first_stride)
            for index, ((before, after), (_, size)) in enumerate(
                zip(pairwise(inputs), stage, strict=True)
            )
        )
    )
