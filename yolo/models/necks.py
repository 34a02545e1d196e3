"""Necks: mix an encoder's maps across scales. The closed set of them that a config may name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from yolo.darknet import cfg
from yolo.errors import UserError
from yolo.models.layers import ConvBlock, scale_channels

NeckWidth = Literal["paper", "scaled"] | float
"""The paper's channels; these in proportion to the encoder's; or a factor on the paper's."""

SPP_SIZES = (5, 9, 13)
"""Windows of the pooling in Darknet's ``yolov3-spp.cfg``, in cells of stride 32."""


class Neck(nn.Module):
    """One or more maps for the head from an encoder's three, (B, C, S / stride, S / stride) each.

    A subclass takes ``in_channels``, those of the encoder's three maps, and ``width``, and sets the
    attributes. Other widths than the paper's are rounded to a multiple of 8.

    Where Darknet has its layers, ``list_levels(layers, maps)`` adds them to a ``LayerList`` in
    Darknet's order, in which the head's part of a level follows the neck's: ``maps`` are the
    encoder's as indices of layers, and it yields the index of each of its own maps when that is the
    last layer.
    """

    strides_px: tuple[int, ...]  # pixels of the image per cell of each map, ascending
    out_channels: tuple[int, ...]
    head_channels: tuple[int, ...] = ()  # of the hidden layer that the head puts on each, if any


def _width_factor(width: NeckWidth, encoder_channels: int, paper_channels: int = 512) -> float:
    """``scaled`` compares a map with the paper's: Darknet-19 and -53 have 512 at stride 16."""
    if width == "paper":
        return 1.0
    return encoder_channels / paper_channels if width == "scaled" else float(width)


class YOLOv1Neck(Neck):
    """The four 3x3 convolutions that the paper adds to its encoder (section 2.2, figure 3).

    The second has stride 2: an image of 448 px becomes 7 x 7 cells. ``scaled`` goes by the
    encoder's channels at stride 32, 1024 in Extraction; there are at least 32.
    """

    strides_px = (64,)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        factor = _width_factor(width, in_channels[2], paper_channels=1024)
        channels = scale_channels(1024, factor, at_least=32)
        self.out_channels = (channels,)
        strides = zip((in_channels[2], channels, channels, channels), (1, 2, 1, 1), strict=True)
        self.convs = nn.Sequential(
            *(ConvBlock(before, channels, kernel_size=3, stride=s) for before, s in strides)
        )

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor]:
        """The encoder's maps -> one map (B, C, S / 64, S / 64); S is a multiple of 64."""
        height, width = maps[2].shape[2:]
        if height % 2 or width % 2:
            raise UserError(
                f"images of {32 * width} x {32 * height} px: YOLOv1 works at multiples of 64 px; "
                f"use the size that the model was trained at."
            )
        return (self.convs(maps[2]),)


class YOLOv2Neck(Neck):
    """Section 2 of the YOLOv2 paper (https://arxiv.org/abs/1612.08242), "fine-grained features".

    The paper stacks all 512 channels of the map at stride 16; Darknet's ``yolov2.cfg`` first
    gathers them in 64, as here.
    """

    strides_px = (32,)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        _, in16, in32 = in_channels
        factor = _width_factor(width, in16)
        out = scale_channels(1024, factor, at_least=32)
        fine = scale_channels(64, factor, at_least=8)
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
        coarse = layers.add_all(self.stride32, after=encoder32)
        fine = layers.add_all(self.passthrough, after=encoder16)
        layers.add(cfg.Route((fine, coarse)))
        self.mix.list_layers(layers)
        yield 0


class Reorg(nn.Module):
    """Darknet's ``[reorg] stride=2``: a quarter of the cells, four times the channels.

    It is not the order that the paper describes. Darknet reads the memory of a (C, H, W) map as if
    it were (C / 4, 2 H, 2 W), sorts the cells of each 2x2 block there into four groups of channels,
    and reads the result as (4 C, H / 2, W / 2). Trained weights expect just this order.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 C, H / 2, W / 2); C a multiple of 4, H and W even."""
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, channels // 4, height, 2, width, 2)  # as (C / 4, 2 H, 2 W)
        groups = blocks.permute(0, 3, 5, 1, 2, 4)  # (B, 2, 2, C / 4, H, W)
        return groups.reshape(batch, 4 * channels, height // 2, width // 2)

    def list_layers(self, layers: cfg.LayerList) -> int:
        return layers.add(cfg.Reorg(stride=2))


class YOLOv3Neck(Neck):
    """Section 2.3 of the YOLOv3 paper (https://arxiv.org/abs/1804.02767).

    At each scale five convolutions make the map that the head reads. It also goes down the pyramid:
    through a 1x1 convolution, upsampled to twice the size, in front of the encoder's finer map.
    """

    strides_px = (8, 16, 32)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        in8, in16, in32 = in_channels
        factor = _width_factor(width, in16)
        # of the paper: those of Darknet's yolov3.cfg
        out8, out16, out32 = (scale_channels(c, factor, at_least=32) for c in (128, 256, 512))
        self.out_channels = (out8, out16, out32)
        self.head_channels = (2 * out8, 2 * out16, 2 * out32)
        self.stride32 = self._coarsest(in32, out32)
        self.up32 = _Up(out32, out16)
        self.stride16 = _five_convs(out16 + in16, out16)
        self.up16 = _Up(out16, out8)
        self.stride8 = _five_convs(out8 + in8, out8)

    def _coarsest(self, in_channels: int, out_channels: int) -> nn.Sequential:
        return _five_convs(in_channels, out_channels)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's maps -> maps of the same sizes, in the same order."""
        encoder8, encoder16, encoder32 = maps
        out32 = self.stride32(encoder32)
        out16 = self.stride16(torch.cat((self.up32(out32), encoder16), dim=1))
        out8 = self.stride8(torch.cat((self.up16(out16), encoder8), dim=1))
        return out8, out16, out32

    def list_levels(self, layers: cfg.LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        encoder8, encoder16, encoder32 = maps
        out32 = layers.add_all(self.stride32, after=encoder32)
        yield 2
        layers.add(cfg.Route((layers.add_all([self.up32], after=out32), encoder16)))
        out16 = layers.add_all(self.stride16)
        yield 1
        layers.add(cfg.Route((layers.add_all([self.up16], after=out16), encoder8)))
        layers.add_all(self.stride8)
        yield 0


class YOLOv3SPPNeck(YOLOv3Neck):
    """YOLOv3's neck with spatial pyramid pooling among the convolutions at stride 32.

    Darknet's ``yolov3-spp.cfg``; after https://arxiv.org/abs/1406.4729, with windows of fixed size.
    """

    def _coarsest(self, in_channels: int, out_channels: int) -> nn.Sequential:
        first, wide, gather, *rest = _five_convs(in_channels, out_channels)
        mix = ConvBlock((1 + len(SPP_SIZES)) * out_channels, out_channels, kernel_size=1)
        return nn.Sequential(first, wide, gather, SpatialPyramidPool(), mix, *rest)


class SpatialPyramidPool(nn.Module):
    """The largest value around each cell in windows of several sizes, beside the cell's own."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(SPP_SIZES[0], stride=1, padding=SPP_SIZES[0] // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 C, H, W), the largest window first, as in Darknet.

        The largest in 9 x 9 cells is the largest in 5 x 5 of the largest in 5 x 5, and so on.
        """
        pooled = [x]
        for _ in SPP_SIZES:
            pooled.append(self.pool(pooled[-1]))
        return torch.cat(pooled[::-1], dim=1)

    def list_layers(self, layers: cfg.LayerList) -> int:
        source, pooled = len(layers) - 1, []
        for size in SPP_SIZES:
            layers.go_on_from(source)
            pooled.append(layers.add(cfg.MaxPool(size=size, stride=1)))
        return layers.add(cfg.Route((*reversed(pooled), source)))


class YOLOv3TinyNeck(Neck):
    """Layers 13 and 17 to 20 of Darknet's ``yolov3-tiny.cfg``; the map at stride 8 is not used.

    At stride 16 the way up and the encoder's map meet without a convolution: the head's first one
    mixes them.
    """

    strides_px = (16, 32)

    def __init__(self, *, in_channels: tuple[int, int, int], width: NeckWidth = "paper") -> None:
        super().__init__()
        _, in16, in32 = in_channels
        factor = _width_factor(width, in16)
        up16, out32 = (scale_channels(c, factor, at_least=32) for c in (128, 256))
        self.out_channels = (up16 + in16, out32)
        self.head_channels = (2 * up16, 2 * out32)
        self.stride32 = ConvBlock(in32, out32, kernel_size=1)
        self.up32 = _Up(out32, up16)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The encoder's maps -> maps at strides 16 and 32."""
        _, encoder16, encoder32 = maps
        out32 = self.stride32(encoder32)
        return torch.cat((self.up32(out32), encoder16), dim=1), out32

    def list_levels(self, layers: cfg.LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        _, encoder16, encoder32 = maps
        out32 = layers.add_all([self.stride32], after=encoder32)
        yield 1
        layers.add(cfg.Route((layers.add_all([self.up32], after=out32), encoder16)))
        yield 0


def _five_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 and 3x3 in turns: the 1x1 gather what the 3x3 spread over twice the channels."""
    channels = (in_channels, *[out_channels, 2 * out_channels] * 2, out_channels)
    sizes = zip(pairwise(channels), (1, 3, 1, 3, 1), strict=True)
    return nn.Sequential(*(ConvBlock(*io, kernel_size=size) for io, size in sizes))


class _Up(nn.Sequential):
    """1x1 convolution, then every cell four times."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        upsample = nn.Upsample(scale_factor=2, mode="nearest")
        super().__init__(ConvBlock(in_channels, out_channels, kernel_size=1), upsample)

    def list_layers(self, layers: cfg.LayerList) -> int:
        layers.add_all([self[0]])
        return layers.add(cfg.Upsample(stride=2))


NECKS: dict[str, Callable[..., Neck]] = {
    "yolov3": YOLOv3Neck,
    "yolov3_spp": YOLOv3SPPNeck,
    "yolov3_tiny": YOLOv3TinyNeck,
    "yolov2": YOLOv2Neck,
    "yolov1": YOLOv1Neck,
}
"""``type`` in a config -> the class; each takes ``in_channels`` and ``width``."""
