"""How wide a neck is: the paper's channels, or a factor on them."""

from __future__ import annotations

from typing import Literal

NeckWidth = Literal["paper", "scaled"] | float
"""``paper``; ``scaled``, in proportion to the encoder; or the factor itself."""

PAPER_STRIDE16_CHANNELS = 512
"""What Darknet-19, Darknet-53 and Extraction have at stride 16."""


def width_factor(width: NeckWidth, in_channels: tuple[int, int, int]) -> float:
    """The factor on the paper's channels.

    Args:
        width: see ``NeckWidth``; ``scaled`` compares the encoder with the papers' at stride 16.
        in_channels: the encoder's at strides 8, 16 and 32.
    """
    if width == "paper":
        return 1.0
    return in_channels[1] / PAPER_STRIDE16_CHANNELS if width == "scaled" else float(width)
