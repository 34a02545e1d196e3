"""What the rest of the project expects of a neck."""

from __future__ import annotations

from typing import Literal

from torch import nn

NeckWidth = Literal["paper", "scaled"] | float
"""The paper's channels; these in proportion to the encoder's; or a factor on the paper's."""


class Neck(nn.Module):
    """Maps of an encoder at strides 8, 16 and 32 in, one or more maps for the head out.

    A subclass takes ``in_channels``, those of the encoder's three maps, and ``width``, and sets the
    attributes. ``forward`` takes the encoder's maps, (B, C, S / stride, S / stride) each. Other
    widths than the paper's are rounded to a multiple of 8.

    Where Darknet has its layers, ``list_levels(layers, maps)`` adds them to a
    ``yolo.darknet.cfg.LayerList`` in Darknet's order, in which the head's part of a level follows
    the neck's: ``maps`` are the encoder's as indices of layers, and it yields the index of each of
    its own maps when that is the last layer.

    Attributes:
        strides_px: pixels of the image per cell of each map, ascending.
        out_channels: channels of each map.
        head_channels: channels of the hidden layer that the head puts on each, where it has one.
    """

    strides_px: tuple[int, ...]
    out_channels: tuple[int, ...]
    head_channels: tuple[int, ...] = ()


def width_factor(width: NeckWidth, encoder_channels: int, paper_channels: int = 512) -> float:
    """The factor on the paper's channels.

    Args:
        width: of the neck.
        encoder_channels: of the encoder's map that ``scaled`` goes by.
        paper_channels: of the same map of the paper's encoder; Darknet-19 and Darknet-53 have 512
            at stride 16.
    """
    if width == "paper":
        return 1.0
    return encoder_channels / paper_channels if width == "scaled" else float(width)
