"""Images with painted rectangles, and finding them again."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from yolo.data.transforms.augment import UNMIXED, Augment, Mix
from yolo.records import Sample

RED = (255, 0, 0)


def always(name: str, **arguments: Any) -> dict[str, Any]:
    """A transform that fires each time."""
    return {"type": name, "p": 1, **arguments}


def augmented(
    transforms: list[dict[str, Any]],
    sample: Sample,
    *,
    size_px: int,
    seed: int = 0,
    mix: Mix = UNMIXED,
    **settings: Any,
) -> Sample:
    """A sample after some transforms; the other settings are those of `Augment`."""
    augment = Augment(transforms=transforms, **settings)
    return augment(sample, size_px=size_px, seed=(seed,), mix=mix)


def smooth_noise(size_hw: tuple[int, int]) -> np.ndarray:
    """Smooth colours with some noise, black and white among them."""
    generator = np.random.default_rng(0)
    image = cv2.resize(generator.integers(0, 256, (6, 8, 3), np.uint8), size_hw[::-1])
    image = np.clip(image.astype(int) + generator.integers(-20, 21, image.shape), 0, 255)
    image[0, 0], image[0, 1] = 0, 255
    return image.astype(np.uint8)


def painted_sample(
    boxes: list[list[float]] | np.ndarray,
    *,
    size_hw: tuple[int, int] = (300, 400),
    ignored: list[bool] | None = None,
    label: int = 0,
    channel: int = 0,
) -> Sample:
    """A grey image with boxes painted on it in one bright channel, at whole pixels.

    Labels count from ``label``.
    """
    image = np.full((*size_hw, 3), 60, np.uint8)
    for x0, y0, x1, y1 in np.asarray(boxes, int).reshape(-1, 4).tolist():
        image[y0:y1, x0:x1] = np.eye(3)[channel] * 255
    return Sample(
        image=image,
        boxes_xyxy_px=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(label, label + len(boxes), dtype=np.int64),
        ignored=np.array(ignored or [False] * len(boxes), bool),
        image_id=5,
        original_size_hw=size_hw,
    )


def found_box(image: np.ndarray, *, channel: int = 0) -> np.ndarray:
    """The rectangle around the bright area, to a fraction of a pixel: soft edges are weighed."""
    pixels = image.astype(float)
    brightness = (pixels[..., channel] - pixels[..., (channel + 1) % 3]) / 255
    columns, rows = brightness.max(axis=0), brightness.max(axis=1)
    return np.array([*_span(columns), *_span(rows)])[[0, 2, 1, 3]]


def _span(profile: np.ndarray) -> tuple[float, float]:
    """Where the profile first and last passes a half, between the centres of two pixels."""
    place = np.flatnonzero(profile >= 0.5)
    first, last = int(place[0]), int(place[-1])
    padded = np.concatenate([[0.0], profile, [0.0]])
    low = first + 0.5 - (profile[first] - 0.5) / (profile[first] - padded[first])
    high = last + 0.5 + (profile[last] - 0.5) / (profile[last] - padded[last + 2])
    return low, high
