"""What the rest of the project expects of a neck."""

from __future__ import annotations

from torch import nn


class Neck(nn.Module):
    """Maps of an encoder at strides 8, 16 and 32 in, one or more maps for the head out.

    A subclass takes ``in_channels`` and ``width`` and sets the attributes.

    Attributes:
        strides_px: pixels of the image per cell of each map, ascending.
        out_channels: channels of each map.
        head_channels: channels of the hidden layer that the head puts on each, where it has one.
    """

    strides_px: tuple[int, ...]
    out_channels: tuple[int, ...]
    head_channels: tuple[int, ...] = ()
