"""YOLOv2's neck: two convolutions at stride 32, and finer features passed through to them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from yolo.darknet import cfg
from yolo.models.layers import ConvBlock, scale_channels
from yolo.models.necks.neck import Neck, NeckWidth, width_factor

PAPER_CHANNELS = 1024
"""Channels of the three 3x3 convolutions (Darknet's ``yolov2.cfg``)."""

PAPER_PASSTHROUGH = 64
"""Channels at stride 16 before they become four times as many at stride 32."""


class YOLOv2Neck(Neck):
    """Section 2 of the YOLOv2 paper (https://arxiv.org/abs/1612.08242), "fine-grained features".

    The paper stacks all 512 channels of the finer map; Darknet's cfg files first gather them in 64,
    as here.
    """

    strides_px = (32,)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        _, in16, in32 = in_channels
        factor = width_factor(width, in16)
        out = scale_channels(PAPER_CHANNELS, factor, at_least=32)
        fine = scale_channels(PAPER_PASSTHROUGH, factor, at_least=8)
        self.out_channels = (out,)
        self.stride32 = nn.Sequential(
            ConvBlock(in32, out, kernel_size=3), ConvBlock(out, out, kernel_size=3)
        )
        self.passthrough = nn.Sequential(ConvBlock(in16, fine, kernel_size=1), Reorg())
        self.mix = ConvBlock(4 * fine + out, out, kernel_size=3)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor]:
        """The encoder's maps, the finest unused -> one map (B, C, S / 32, S / 32)."""
        _, encoder16, encoder32 = maps
        fine = self.passthrough(encoder16)  # (B, 4 * fine, S / 32, S / 32)
        return (self.mix(torch.cat((fine, self.stride32(encoder32)), dim=1)),)

    def list_levels(self, layers: cfg.LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        _, encoder16, encoder32 = maps
        layers.go_on_from(encoder32)
        coarse = layers.add_all(self.stride32)
        layers.go_on_from(encoder16)
        fine = layers.add_all(self.passthrough)
        layers.add(cfg.Route((fine, coarse)))
        self.mix.list_layers(layers)
        yield 0


class Reorg(nn.Module):
    """Darknet's ``[reorg] stride=2``: a quarter of the cells, four times the channels.

    It is not the space-to-depth that the paper describes. Darknet reads the memory of a (C, H, W)
    map as if it were (C / 4, 2 H, 2 W), sorts the cells of each 2x2 block there into four groups of
    channels, and reads the result as (4 C, H / 2, W / 2). Trained weights expect just this order.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 C, H / 2, W / 2); C a multiple of 4, H and W even."""
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, channels // 4, height, 2, width, 2)  # as (C / 4, 2 H, 2 W)
        groups = blocks.permute(0, 3, 5, 1, 2, 4)  # (B, 2, 2, C / 4, H, W)
        return groups.reshape(batch, 4 * channels, height // 2, width // 2)

    def list_layers(self, layers: cfg.LayerList) -> int:
        return layers.add(cfg.Reorg(stride=2))
