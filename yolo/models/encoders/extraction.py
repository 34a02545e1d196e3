"""Extraction, the encoder of YOLOv1 (https://arxiv.org/abs/1506.02640)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from yolo.layer_records import LayerList, MaxPool, list_in_a_row
from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import UNIT_RANGE, ConvBlock

STAGES = (
    ((64, 7),),  # stride 2, of the convolution itself
    ((192, 3),),  # 4
    ((128, 1), (256, 3), (256, 1), (512, 3)),  # 8
    (*((256, 1), (512, 3)) * 4, (512, 1), (1024, 3)),  # 16
    ((512, 1), (1024, 3), (512, 1), (1024, 3)),  # 32
)
"""Channels and kernel size of the convolutions of each stage: figure 3 of the paper."""


def extraction() -> Extraction:
    """Build the encoder with random weights."""
    return Extraction()


class Extraction(Encoder):
    """The first 20 convolutions of figure 3, which the paper trains on ImageNet first.

    Batch normalised as in Darknet's ``extraction.cfg`` and ``yolov1.cfg``; the paper's own were
    not. A stage ends before its max pooling; so do the maps that a detector reads.
    """

    preprocessing = UNIT_RANGE

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        ends = [stage[-1][0] for stage in STAGES]
        self.stages = nn.ModuleList(
            _convolutions(in_channels, stage)
            for in_channels, stage in zip((3, *ends[:-1]), STAGES, strict=True)
        )
        self.out_channels = (ends[2], ends[3], ends[4])

    def forward(self, images: Tensor) -> EncoderMaps:
        """Normalised (B, 3, S, S) -> 512, 1024 and 1024 channels at strides 8, 16 and 32."""
        stride2 = self.stages[0](images)
        stride4 = self.stages[1](self.pool(stride2))
        stride8 = self.stages[2](self.pool(stride4))
        stride16 = self.stages[3](self.pool(stride8))
        stride32 = self.stages[4](self.pool(stride16))
        return stride8, stride16, stride32

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        """Write itself in Darknet's order. Returns the indices of the three maps."""
        ends: list[int] = []
        for stage in self.stages:
            if ends:
                layers.add(MaxPool(size=2, stride=2))
            ends.append(list_in_a_row(layers, stage.children()))
        return ends[2], ends[3], ends[4]


def _convolutions(in_channels: int, stage: tuple[tuple[int, int], ...]) -> nn.Sequential:
    """Convolutions of one size of map; the 7x7 halves it."""
    inputs = (in_channels, *(channels for channels, _ in stage))
    return nn.Sequential(
        *(
            ConvBlock(before, after, kernel_size=size, stride=2 if size == 7 else 1)
            for (before, after), (_, size) in zip(pairwise(inputs), stage, strict=True)
        )
    )
