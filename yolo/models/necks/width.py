"""How wide a neck is: the paper's channels, or a factor on them."""

from __future__ import annotations

from typing import Literal

NeckWidth = Literal["paper", "scaled"] | float
"""``paper``; ``scaled``, in proportion to the encoder; or the factor itself."""

STRIDE16_CHANNELS = 512
"""What Darknet-19 and Darknet-53 have at stride 16."""


def width_factor(width: NeckWidth, encoder_channels: int, paper_channels: int) -> float:
    """The factor on the paper's channels.

    Args:
        width: see ``NeckWidth``.
        encoder_channels: of the encoder's map that ``scaled`` goes by.
        paper_channels: of the same map of the paper's encoder.
    """
    if width == "paper":
        return 1.0
    return encoder_channels / paper_channels if width == "scaled" else float(width)
