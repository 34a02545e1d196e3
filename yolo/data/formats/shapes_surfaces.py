"""Colours and patterns of the shapes data set: of its objects and of what lies behind them."""

from __future__ import annotations

import cv2
import numpy as np

_HUE_SPREAD_DEGREES = 20  # of a class around its own hue: a hint, as with apples, not a label
_MIN_CONTRAST = 100  # distance in RGB between an object's colour and what lies under it


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Brightness (height, width, 1) of a filling: plain, shaded or striped, around 1."""
    kind = rng.integers(3)
    if kind == 0:
        return np.ones((height, width, 1))
    along = _direction(rng, height, width) / max(height, width)  # 0 .. about 1
    if kind == 1:
        return (0.75 + 0.4 * along)[:, :, None]
    stripes = min(float(rng.integers(4, 9)), max(height, width) / 8)  # none thinner than 4 px
    return (1 - 0.25 * (along * stripes % 1 < 0.5))[:, :, None]


def _direction(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Distance in pixels along a random direction: (height, width)."""
    angle = rng.uniform(0, np.pi / 2)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    return np.cos(angle) * columns + np.sin(angle) * rows


def contrasting_colour(
    rng: np.random.Generator, own_hue_degrees: float, under: np.ndarray
) -> np.ndarray:
    """A lively RGB colour near a hue in degrees, unlike the mean colour under it; float (3,)."""
    while True:
        hue = rng.normal(own_hue_degrees, _HUE_SPREAD_DEGREES) % 360
        colour = _colour(rng, hue, saturation=(0.55, 1), value=(0.5, 1))
        if np.linalg.norm(colour - under) >= _MIN_CONTRAST:
            return colour


def _colour(
    rng: np.random.Generator,
    hue: float,
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> np.ndarray:
    """An RGB colour of a hue in degrees: float (3,), 0..255."""
    hsv = np.array([[[hue, rng.uniform(*saturation), rng.uniform(*value)]]])
    return cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)[0, 0].astype(float) * 255


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two dull colours mixed by a pattern: uint8 (height, width, 3)."""
    first, second = (
        _colour(rng, rng.uniform(0, 360), saturation=(0, 0.35), value=(0.2, 0.9)) for _ in range(2)
    )
    second = first + (second - first) * rng.uniform(0.3, 0.8)
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))](rng, height, width)[:, :, None]
    return np.rint(first + (second - first) * pattern).astype(np.uint8)


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.random((rng.integers(3, 12), rng.integers(3, 12)))
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    along = _direction(rng, height, width)
    return along / along.max()


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    along = _direction(rng, height, width)
    return 0.5 + 0.5 * np.sin(along * (2 * np.pi / rng.uniform(8, 50)))


def _checker(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    step = rng.integers(10, 40)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    return ((rows // step + columns // step) % 2).astype(float)


_PATTERNS = (_clouds, _gradient, _stripes, _checker)
