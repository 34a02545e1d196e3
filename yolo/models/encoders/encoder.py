"""What the rest of the project expects of an encoder."""

from __future__ import annotations

from torch import Tensor, nn

from yolo.models.layers import Preprocessing

EncoderMaps = tuple[Tensor, Tensor, Tensor]
"""Feature maps at strides 8, 16 and 32: (B, C, S / stride, S / stride) each."""


class Encoder(nn.Module):
    """A backbone: turns normalised images (B, 3, S, S) into ``EncoderMaps``.

    S is any multiple of 32. A subclass sets the two attributes and defines ``forward``.

    Attributes:
        strides: pixels of the image per cell of each map.
        out_channels: channels of the three maps, in the order of ``strides``.
        preprocessing: what the input is normalised with.
    """

    strides: tuple[int, int, int] = (8, 16, 32)
    out_channels: tuple[int, int, int]
    preprocessing: Preprocessing
