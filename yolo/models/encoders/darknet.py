"""Darknet's own encoders: those of the papers of YOLOv1, v2 and v3, and of YOLOv3-tiny."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from yolo.darknet.cfg import LayerList, MaxPool, Shortcut
from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import UNIT_RANGE, ConvBlock, scale_channels


class Darknet53(Encoder):
    """YOLOv3's encoder (https://arxiv.org/abs/1804.02767): table 1 of the paper, 52 convolutions.

    Its pooling and classifier are left out.
    """

    preprocessing = UNIT_RANGE
    out_channels = (256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(3, 32, kernel_size=3)
        self.stages = nn.ModuleList(
            [
                _ResidualStage(32, 64, blocks=1),  # stride 2
                _ResidualStage(64, 128, blocks=2),  # 4
                _ResidualStage(128, 256, blocks=8),  # 8
                _ResidualStage(256, 512, blocks=8),  # 16
                _ResidualStage(512, 1024, blocks=4),  # 32
            ]
        )

    def forward(self, images: Tensor) -> EncoderMaps:
        stride2 = self.stages[0](self.stem(images))
        stride8 = self.stages[2](self.stages[1](stride2))
        stride16 = self.stages[3](stride8)
        return stride8, stride16, self.stages[4](stride16)

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        self.stem.list_layers(layers)
        ends = [layers.add_all([stage]) for stage in self.stages]
        return ends[2], ends[3], ends[4]


class _ResidualStage(nn.Module):
    """Halve the size with a strided convolution, then refine with residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, *, blocks: int) -> None:
        super().__init__()
        self.downsample = ConvBlock(in_channels, out_channels, kernel_size=3, stride=2)
        self.blocks = nn.Sequential(*(_ResidualBlock(out_channels) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        return self.blocks(self.downsample(x))

    def list_layers(self, layers: LayerList) -> int:
        return layers.add_all([self.downsample, *self.blocks])


class _ResidualBlock(nn.Module):
    """Half the channels by 1x1, back by 3x3, added to the input; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = ConvBlock(channels, channels // 2, kernel_size=1)
        self.expand = ConvBlock(channels // 2, channels, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.squeeze(x))

    def list_layers(self, layers: LayerList) -> int:
        source = len(layers) - 1
        layers.add_all([self.squeeze, self.expand])
        return layers.add(Shortcut(source))


class _PooledStages(Encoder):
    """Convolutions one after the other; max pooling halves the map between two stages.

    A stage ends before its max pooling; so do the maps that a detector reads, those of the last
    three stages, at strides 8, 16 and 32.
    """

    preprocessing = UNIT_RANGE
    convolutions: tuple[tuple[tuple[int, int], ...], ...]  # channels, kernel size; by stage
    first_stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.stages = nn.ModuleList()
        channels, stride = 3, self.first_stride
        for stage in self.convolutions:
            convs = nn.Sequential()
            for out, size in stage:
                convs.append(ConvBlock(channels, out, kernel_size=size, stride=stride))
                channels, stride = out, 1
            self.stages.append(convs)
        out8, out16, out32 = (stage[-1][0] for stage in self.convolutions[-3:])
        self.out_channels = (out8, out16, out32)

    def forward(self, images: Tensor) -> EncoderMaps:
        stride8 = self.stages[0](images)
        for stage in self.stages[1:-2]:
            stride8 = stage(self.pool(stride8))
        stride16 = self.stages[-2](self.pool(stride8))
        return stride8, stride16, self.stages[-1](self.pool(stride16))

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        ends: list[int] = []
        for stage in self.stages:
            if ends:
                layers.add(MaxPool(size=2, stride=2))
            ends.append(layers.add_all(stage.children()))
        return ends[-3], ends[-2], ends[-1]


class Darknet19(_PooledStages):
    """YOLOv2's encoder (https://arxiv.org/abs/1612.08242): table 6 of the paper, 18 convolutions.

    Its classifier and pooling are left out.
    """

    convolutions = (
        ((32, 3),),  # stride 1
        ((64, 3),),  # 2
        ((128, 3), (64, 1), (128, 3)),  # 4
        ((256, 3), (128, 1), (256, 3)),  # 8
        ((512, 3), (256, 1), (512, 3), (256, 1), (512, 3)),  # 16
        ((1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3)),  # 32
    )


class Extraction(_PooledStages):
    """YOLOv1's encoder (https://arxiv.org/abs/1506.02640): the first 20 convolutions of figure 3.

    The paper trains these on ImageNet first. Batch normalised as in Darknet's ``extraction.cfg``
    and ``yolov1.cfg``; the paper's own were not.
    """

    convolutions = (
        ((64, 7),),  # stride 2, of the convolution itself
        ((192, 3),),  # 4
        ((128, 1), (256, 3), (256, 1), (512, 3)),  # 8
        (*((256, 1), (512, 3)) * 4, (512, 1), (1024, 3)),  # 16
        ((512, 1), (1024, 3), (512, 1), (1024, 3)),  # 32
    )
    first_stride = 2


class DarknetTiny(Encoder):
    """The encoder of ``yolov3-tiny.cfg``: seven convolutions with max pooling between them.

    Darknet's neck reads its maps at strides 16 and 32 (``YOLOv3TinyNeck``). The one at stride 8,
    before its pooling, goes along, so that the neck of the full YOLOv3 fits too. The maps have
    128, 256 and 1024 channels times ``width``, the factor on the channels of every layer.
    """

    preprocessing = UNIT_RANGE

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        cfg = (16, 32, 64, 128, 256, 512, 1024)
        channels = [3, *(scale_channels(c, width, at_least=8) for c in cfg)]
        self.convs = nn.ModuleList(
            ConvBlock(before, after, kernel_size=3) for before, after in pairwise(channels)
        )
        self.pool = nn.MaxPool2d(2)
        self.smooth = SameSizeMaxPool()
        self.out_channels = (channels[4], channels[5], channels[7])

    def forward(self, images: Tensor) -> EncoderMaps:
        x = images
        for conv in self.convs[:3]:
            x = self.pool(conv(x))
        stride8 = self.convs[3](x)
        stride16 = self.convs[4](self.pool(stride8))
        x = self.convs[5](self.pool(stride16))
        return stride8, stride16, self.convs[6](self.smooth(x))

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        maps = []
        for index, conv in enumerate(self.convs):
            if index:
                layers.add(MaxPool(size=2, stride=1 if index == 6 else 2))
            maps.append(layers.add_all([conv]))
        return maps[3], maps[4], maps[6]


class SameSizeMaxPool(nn.Module):
    """Darknet's ``[maxpool] size=2 stride=1``, padded at the right and at the bottom only."""

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1), value=float("-inf"))  # (B, C, H + 1, W + 1)
        return F.max_pool2d(padded, kernel_size=2, stride=1)  # (B, C, H, W)
