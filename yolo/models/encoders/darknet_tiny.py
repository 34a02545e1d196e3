"""YOLOv3-tiny's encoder: seven convolutions with max pooling between them, for small machines."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from yolo.darknet.layer_records import LayerList, MaxPool, list_in_a_row
from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import UNIT_RANGE, ConvBlock, scale_channels

CHANNELS = (16, 32, 64, 128, 256, 512, 1024)
"""Layers 0 to 12 of Darknet's ``yolov3-tiny.cfg``; the fourth convolution works at stride 8."""


def darknet_tiny(*, width: float = 1.0) -> DarknetTiny:
    """Build the encoder with random weights.

    Args:
        width: factor on the channels of every layer; 1 is Darknet's.
    """
    return DarknetTiny(width=width)


class DarknetTiny(Encoder):
    """The encoder of ``yolov3-tiny.cfg``.

    Darknet's neck reads its maps at strides 16 and 32 (``YOLOv3TinyNeck``). The one at stride 8,
    before its pooling, goes along, so that the neck of the full YOLOv3 fits too.
    """

    preprocessing = UNIT_RANGE

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        channels = [3, *(scale_channels(c, width, at_least=8) for c in CHANNELS)]
        self.convs = nn.ModuleList(
            ConvBlock(channels[i], channels[i + 1], kernel_size=3) for i in range(len(CHANNELS))
        )
        self.pool = nn.MaxPool2d(2)
        self.smooth = SameSizeMaxPool()
        self.out_channels = (channels[4], channels[5], channels[7])

    def forward(self, images: Tensor) -> EncoderMaps:
        """Normalised (B, 3, S, S) -> width * (128, 256, 1024) channels at strides 8, 16, 32."""
        x = images
        for conv in self.convs[:3]:
            x = self.pool(conv(x))
        stride8 = self.convs[3](x)
        stride16 = self.convs[4](self.pool(stride8))
        x = self.convs[5](self.pool(stride16))
        stride32 = self.convs[6](self.smooth(x))
        return stride8, stride16, stride32

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        """Write itself in Darknet's order. Returns the indices of the three maps."""
        maps = []
        for index, conv in enumerate(self.convs):
            maps.append(list_in_a_row(layers, [conv]))
            if index < len(self.convs) - 1:
                smooth = index == len(self.convs) - 2
                layers.add(MaxPool(size=2, stride=1 if smooth else 2))
        return maps[3], maps[4], maps[6]


class SameSizeMaxPool(nn.Module):
    """Darknet's ``[maxpool] size=2 stride=1``, padded at the right and at the bottom only."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        padded = F.pad(x, (0, 1, 0, 1), value=float("-inf"))  # (B, C, H + 1, W + 1)
        return F.max_pool2d(padded, kernel_size=2, stride=1)
