"""Darknet-53, the encoder of YOLOv3 (https://arxiv.org/abs/1804.02767)."""

from __future__ import annotations

from torch import Tensor, nn

from yolo.darknet.layer_records import LayerList, Shortcut, list_in_a_row
from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import UNIT_RANGE, ConvBlock

STEM_CHANNELS = 32

STAGES = (
    (64, 1),  # stride 2
    (128, 2),  # 4
    (256, 8),  # 8
    (512, 8),  # 16
    (1024, 4),  # 32
)
"""Channels and residual blocks of each stage: table 1 of the YOLOv3 paper."""


def darknet53() -> Darknet53:
    """Build the encoder with random weights."""
    return Darknet53()


class Darknet53(Encoder):
    """Table 1 of the paper without its pooling and classifier: 52 convolutions."""

    preprocessing = UNIT_RANGE

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(3, STEM_CHANNELS, kernel_size=3)
        channels = [STEM_CHANNELS, *(channels for channels, _ in STAGES)]
        self.stages = nn.ModuleList(
            Stage(channels[i], channels[i + 1], blocks=blocks)
            for i, (_, blocks) in enumerate(STAGES)
        )
        self.out_channels = (channels[-3], channels[-2], channels[-1])

    def forward(self, images: Tensor) -> EncoderMaps:
        """Normalised (B, 3, S, S) -> 256, 512 and 1024 channels at strides 8, 16 and 32."""
        stride2 = self.stages[0](self.stem(images))
        stride8 = self.stages[2](self.stages[1](stride2))
        stride16 = self.stages[3](stride8)
        stride32 = self.stages[4](stride16)
        return stride8, stride16, stride32

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        """Write itself in Darknet's order. Returns the indices of the three maps."""
        self.stem.list_layers(layers)
        ends = [list_in_a_row(layers, [stage]) for stage in self.stages]
        return ends[2], ends[3], ends[4]


class Stage(nn.Module):
    """Halve the size with a strided convolution, then refine with residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, *, blocks: int) -> None:
        super().__init__()
        self.downsample = ConvBlock(in_channels, out_channels, kernel_size=3, stride=2)
        self.blocks = nn.Sequential(*(ResidualBlock(out_channels) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        return self.blocks(self.downsample(x))

    def list_layers(self, layers: LayerList) -> int:
        """Write itself. Returns the index of its last layer."""
        return list_in_a_row(layers, [self.downsample, *self.blocks])


class ResidualBlock(nn.Module):
    """Half the channels by 1x1, back by 3x3, added to the input; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = ConvBlock(channels, channels // 2, kernel_size=1)
        self.expand = ConvBlock(channels // 2, channels, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.expand(self.squeeze(x))

    def list_layers(self, layers: LayerList) -> int:
        """Write itself. Returns the index of its last layer."""
        source = len(layers) - 1
        list_in_a_row(layers, [self.squeeze, self.expand])
        return layers.add(Shortcut(source))
