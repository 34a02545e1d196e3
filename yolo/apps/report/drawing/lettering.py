"""Text on pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from yolo.letterbox import FILL_COLOUR_RGB

Colour = tuple[int, int, int]


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """An image with a strip above it that bears a title."""
    height, width = image.shape[:2]
    font = load_font(font_size_px(height, width) + 2)
    title = _shortened(font, title, width)
    strip = Image.new("RGB", (width, text_size(font, title)[1] + 4), FILL_COLOUR_RGB)
    middle = (width // 2, strip.height // 2)
    ImageDraw.Draw(strip).text(middle, title, ink(FILL_COLOUR_RGB), font, anchor="mm")
    return np.concatenate((np.array(strip), image))


def _shortened(font: ImageFont.FreeTypeFont, text: str, width: int) -> str:
    """The end of a text that fits, as that of a path says more than its start."""
    starts = (text[start:] for start in range(1, len(text)))
    candidates = (text, *(f"…{rest}" for rest in starts))
    return next((some for some in candidates if text_size(font, some)[0] <= width), "")


def font_size_px(height: int, width: int) -> int:
    """Of text on a picture of this size."""
    return max(10, round(max(height, width) / 48))


def text_size(font: ImageFont.FreeTypeFont, text: str) -> tuple[int, int]:
    """Width and height of a text with its margin, the height the same for every text."""
    ascent, descent = font.getmetrics()
    return round(font.getlength(text)) + 4, ascent + descent


@lru_cache
def load_font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font has no letter beyond ASCII."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size_px)


def ink(background: Colour) -> Colour:
    """Black or white, whichever is easier to read (the luma weights of ITU-R BT.601)."""
    red, green, blue = background
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    return (0, 0, 0) if bright else (255, 255, 255)
