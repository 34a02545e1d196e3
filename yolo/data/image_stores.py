"""What keeps decoded images has to offer, and what is kept of each."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from yolo.letterbox import Letterbox

CHANNELS = 3


class Kept(NamedTuple):
    """What is kept of an image.

    Attributes:
        image: uint8 (H, W, 3), shrunk.
        original_hw: its height and width in pixels before.
    """

    image: np.ndarray
    original_hw: tuple[int, int]


def shrunk_hw(size_hw: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """The size of an image whose longer side is ``side_px`` at most, as the letterbox rounds it."""
    height, width = size_hw
    if max(height, width) <= side_px:
        return height, width
    return Letterbox.fit((height, width), side_px).scaled_hw


class Store(Protocol):
    """Where images are kept."""

    def key(self, index: int) -> Any:
        """What names the present content of an image; None if it cannot be read."""

    def read(self, key: Any) -> Kept | None:
        """What is kept under a key; the array is the caller's own."""

    def write(self, key: Any, kept: Kept) -> None:
        """Keep an image if there is room."""
