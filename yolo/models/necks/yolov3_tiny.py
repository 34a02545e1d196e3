"""YOLOv3-tiny's neck: one convolution, and one way up."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from yolo.darknet.layer_records import LayerList, Route
from yolo.models.layers import ConvBlock, scale_channels
from yolo.models.necks.neck import Neck
from yolo.models.necks.width import STRIDE16_CHANNELS, NeckWidth, width_factor
from yolo.models.necks.yolov3 import list_upsample, upsample

PAPER_CHANNELS = (128, 256)
"""Channels of the way up and of the map at stride 32: layers 18 and 13 of ``yolov3-tiny.cfg``."""


class YOLOv3TinyNeck(Neck):
    """Layers 13 and 17 to 20 of Darknet's ``yolov3-tiny.cfg``; the map at stride 8 is not used.

    At stride 16 the way up and the encoder's map meet without a convolution: the head's first one
    mixes them.

    Args:
        in_channels: channels of the encoder's maps at strides 8, 16 and 32.
        width: as in ``YOLOv3Neck``.

    Attributes:
        out_channels: channels of the two maps, strides 16 and 32.
        head_channels: channels of the head's hidden layer at each: Darknet's 256 and 512.
    """

    strides_px = (16, 32)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        _, in16, in32 = in_channels
        factor = width_factor(width, in16, STRIDE16_CHANNELS)
        up16, out32 = (scale_channels(c, factor, at_least=32) for c in PAPER_CHANNELS)
        self.out_channels = (up16 + in16, out32)
        self.head_channels = (2 * up16, 2 * out32)
        self.stride32 = ConvBlock(in32, out32, kernel_size=1)
        self.up32 = upsample(out32, up16)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mix the scales.

        Args:
            maps: the encoder's, (B, C, S / stride, S / stride) at strides 8, 16, 32; S a multiple
                of 32.

        Returns:
            ``out_channels`` maps at strides 16 and 32.
        """
        _, encoder16, encoder32 = maps
        out32 = self.stride32(encoder32)
        out16 = torch.cat((self.up32(out32), encoder16), dim=1)
        return out16, out32

    def list_levels(self, layers: LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        """Write itself level by level; see ``YOLOv3Neck.list_levels``."""
        _, encoder16, encoder32 = maps
        layers.go_on_from(encoder32)
        out32 = self.stride32.list_layers(layers)
        yield 1
        layers.add(Route((list_upsample(layers, self.up32, out32), encoder16)))
        yield 0
