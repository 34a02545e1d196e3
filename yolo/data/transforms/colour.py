"""Our own transforms of colour, on uint8, with the interface of Albumentations' transforms."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Annotated

import cv2
import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr


def nondecreasing(ends: tuple[float, float]) -> tuple[float, float]:
    """A range itself, refused where it starts above its end."""
    if ends[0] > ends[1]:
        raise ValueError(f"{list(ends)} must be in ascending order")
    return ends


Unit = Annotated[float, Field(ge=0, le=1)]
Byte = Annotated[float, Field(ge=0, le=255)]
Factor = Annotated[float, Field(ge=1, le=10)]
UnitRange = Annotated[tuple[Unit, Unit], AfterValidator(nondecreasing)]
ByteRange = Annotated[tuple[Byte, Byte], AfterValidator(nondecreasing)]


class ColourTransform(BaseModel, ABC):
    """A random change of the pixels, from the generators it is given; its fields are the arguments.

    It follows the protocol of Albumentations' transforms as far as `Augment` uses it.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    p: float = Field(0.5, ge=0, le=1, description="Probability of applying it to an image.")

    _generator: np.random.Generator = PrivateAttr()
    _py_random: random.Random = PrivateAttr()

    def set_random_state(self, generator: np.random.Generator, py_random: random.Random) -> None:
        self._generator, self._py_random = generator, py_random

    def should_apply(self) -> bool:
        """Whether it fires; draws unless that is certain."""
        return self.p >= 1 or (self.p > 0 and self._py_random.random() < self.p)

    def __call__(self, *, image: np.ndarray) -> dict[str, np.ndarray]:
        """Image uint8 (H, W, 3) RGB -> {"image": the same or a changed one}."""
        return {"image": self.apply(image) if self.should_apply() else image}

    @abstractmethod
    def apply(self, image: np.ndarray) -> np.ndarray:
        """A changed copy of uint8 (H, W, 3) RGB, or the image itself."""


class HSVJitter(ColourTransform):
    """Shift the hue and multiply saturation and exposure, as Darknet does to every image.

    The arguments are those of a Darknet cfg, and drawn as there (``image.c``, random_distort_image
    and rand_scale). Saturation and value stay within 1, as in the versions of Darknet that use
    OpenCV.
    """

    hue: float = Field(
        0.1, ge=0, le=0.5, description="Largest shift either way, as a share of the colour circle."
    )
    saturation: Factor = Field(
        1.5, description="Largest factor of the saturation; its reciprocal is the least."
    )
    exposure: Factor = Field(
        1.5, description="Largest factor of the brightness; its reciprocal is the least."
    )

    def apply(self, image: np.ndarray) -> np.ndarray:
        shift = float(self._generator.uniform(-self.hue, self.hue))
        saturation, exposure = self._factor(self.saturation), self._factor(self.exposure)
        if (shift, saturation, exposure) == (0, 1, 1):
            return image
        return change_hsv(image, shift=shift, saturation=saturation, exposure=exposure)

    def _factor(self, most: float) -> float:
        """Of 1 .. most, or with one half chance its reciprocal."""
        factor = float(self._generator.uniform(1, most))
        return factor if self._generator.random() < 0.5 else 1 / factor


class Haze(ColourTransform):
    """Lay a bright veil over the image, of smoothly varying thickness, as haze or mist does.

    I' = (1 - a) I + a A, the model of Koschmieder that dehazing papers invert: A is the colour of
    the air, a the share of the light that comes from it, larger where the view reaches farther.
    """

    strength: UnitRange = Field(
        (0.2, 0.6), description="Range of the veil's share where it is thickest: 1 hides the image."
    )
    brightness: ByteRange = Field(
        (200.0, 250.0), description="Range of the veil's grey level, 0 to 255."
    )
    depth: UnitRange = Field(
        (0.0, 0.8),
        description="Range of how much thinner the veil is at the lower edge: 0 as thick as at "
        "the upper edge, 1 none.",
    )

    def apply(self, image: np.ndarray) -> np.ndarray:
        draw = self._generator.uniform
        strength, depth = draw(*self.strength), draw(*self.depth)
        brightness = draw(*self.brightness)
        cells = draw(0.6, 1, (4, 4)).astype(np.float32)  # the thickness, smooth between them
        if strength == 0:
            return image
        side_px = 64  # from there to the image straight lines are smooth enough
        smooth = cv2.resize(cells, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        veil = smooth * np.linspace(1, 1 - depth, side_px)[:, None]  # (P, P) * (P, 1)
        return blend_veil(image, veil * (strength / veil.max()), brightness)


class IntensityStretch(ColourTransform):
    """Stretch the intensities so that two percentiles of them become black and white.

    One table for all three channels, so that grey stays grey.
    """

    low: float = Field(
        1.0, ge=0, lt=50, description="Percent of the image's values, the darkest, that become 0."
    )
    high: float = Field(
        99.0, gt=50, le=100, description="Percent of the values below which none becomes 255."
    )

    def apply(self, image: np.ndarray) -> np.ndarray:
        counts = cv2.calcHist([image.reshape(-1)], [0], None, [256], [0, 256])
        below = counts.cumsum(dtype=np.float64)  # (256, 1) -> (256,), values up to each level
        black = int(np.searchsorted(below, image.size * self.low / 100, side="right"))
        white = int(np.searchsorted(below, image.size * self.high / 100, side="left"))
        if white <= black:
            return image
        levels = (np.arange(256) - black) * (255 / (white - black))
        return cv2.LUT(image, _as_table(levels))


def change_hsv(
    image: np.ndarray, *, shift: float, saturation: float, exposure: float
) -> np.ndarray:
    """Shift the hue by a share of the circle, multiply saturation and value, each at most 1.

    Image uint8 (H, W, 3) RGB -> another of the same shape.
    """
    levels = np.arange(256)
    tables = np.empty((1, 256, 3), np.uint8)
    tables[0, :, 0] = np.rint(levels + 256 * shift).astype(np.int64) % 256
    tables[0, :, 1] = _as_table(levels * saturation)
    tables[0, :, 2] = _as_table(levels * exposure)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    return cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2RGB_FULL)


def blend_veil(image: np.ndarray, share: np.ndarray, brightness: float) -> np.ndarray:
    """(1 - share) image + share brightness, rounded.

    Image uint8 (H, W, 3), share (h, w) in 0..1, enlarged to the image, and brightness in 0..255.
    """
    height, width = image.shape[:2]
    thickness = cv2.resize((share * 255).round().astype(np.uint8), (width, height))  # (H, W)
    air = cv2.LUT(thickness, _as_table(np.arange(256) * (brightness / 255)))
    seen = cv2.merge([255 - thickness] * 3)  # (H, W) -> (H, W, 3)
    return cv2.add(cv2.multiply(image, seen, scale=1 / 255), cv2.merge([air] * 3))


def _as_table(levels: np.ndarray) -> np.ndarray:
    """256 levels of any number -> uint8, rounded and cut off at 0 and 255."""
    return np.rint(levels).clip(0, 255).astype(np.uint8)


OWN_TRANSFORMS: dict[str, type[ColourTransform]] = {
    transform.__name__: transform for transform in (HSVJitter, Haze, IntensityStretch)
}
