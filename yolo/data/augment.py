"""Training transforms: each chosen and set by name, their randomness a function of the sample.

Albumentations' transforms are called one by one, without its `Compose`: boxes travel as the
corners of rectangles and keep to our own rules, and every transform draws from a generator that
is seeded per sample (Compose mixes the number of the worker into its seeds).
"""

from __future__ import annotations

import difflib
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB, Letterbox
from yolo.records import Sample

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network

import albumentations
import cv2
from albumentations.augmentations.crops.transforms import CropSizeError

STRETCH = "Resize"
GEOMETRIC = ("HorizontalFlip", "Affine", "Rotate", "RandomCrop")
"""Transforms that move boxes; applied first, in the listed order."""
COLOUR = (
    "MultiplicativeNoise",
    "CLAHE",
    "Posterize",
    "ToGray",
    "RandomBrightnessContrast",
    "RGBShift",
    "ColorJitter",
    "GaussNoise",
    "RandomFog",
    "CoarseDropout",
    "Blur",
    "ChannelShuffle",
)
"""Transforms of the pixels alone; applied last, in the listed order, on the small image."""
TRANSFORMS = (STRETCH, *GEOMETRIC, *COLOUR)

SMALLEST_SIDE_PX = 1.0
"""A box of which less is left is dropped."""


class Augment:
    """Turns a sample into a random square variant of itself.

    The image is letterboxed to its final size first, unless ``Resize`` fires and stretches it;
    then come the geometric transforms, then those of colour. Empty areas get the mean colour. A
    box that a transform cuts keeps the share of its area that is still visible; a box of which too
    little is left becomes an ignored region, and one without a visible pixel is dropped.

    Args:
        transforms: of each its "type" (one of `TRANSFORMS`), "p" and arguments of Albumentations'
            transform of that name. ``Resize`` takes no size: it is the network's.
        min_visibility: share of its area, 0..1, below which a box becomes an ignored region.

    Raises:
        UserError: an unknown transform or argument, or a value that it does not take.
    """

    def __init__(
        self, *, transforms: Sequence[Mapping[str, Any]], min_visibility: float = 0.1
    ) -> None:
        built = [(settings["type"], build_transform(settings)) for settings in transforms]
        self._stretches = [transform for name, transform in built if name == STRETCH]
        self._geometric = [transform for name, transform in built if name in GEOMETRIC]
        self._colour = [transform for name, transform in built if name in COLOUR]
        self._min_visibility = min_visibility

    def __call__(self, sample: Sample, *, size_px: int, seed: tuple[int, ...]) -> Sample:
        """A variant of ``sample``: a pure function of the sample, the size and the seed.

        Args:
            sample: the original.
            size_px: side of the square.
            seed: numbers >= 0, such as (seed of the run, epoch, index).

        Returns:
            A sample of (size_px, size_px, 3).
        """
        self._seed(seed)
        frame = self._to_square(_Frame.of(sample), size_px)
        for transform in self._geometric:
            frame = _move(frame, transform)
            if frame.image.shape[:2] != (size_px, size_px):
                frame = _letterbox(frame, size_px)
        image = frame.image
        for transform in self._colour:
            image = transform(image=image)["image"]
        return self._finish(sample, replace(frame, image=image))

    def _seed(self, seed: tuple[int, ...]) -> None:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        py_random = random.Random(int(generator.integers(2**63)))
        for transform in (*self._stretches, *self._geometric, *self._colour):
            transform.set_random_state(generator, py_random)

    def _to_square(self, frame: _Frame, size_px: int) -> _Frame:
        for stretch in self._stretches:
            if stretch.should_apply():
                stretch.height = stretch.width = size_px
                height, width = frame.image.shape[:2]
                scale = np.array([size_px / width, size_px / height] * 2, np.float32)
                return replace(frame, image=stretch.apply(frame.image), boxes=frame.boxes * scale)
        return _letterbox(frame, size_px)

    def _finish(self, sample: Sample, frame: _Frame) -> Sample:
        sides = frame.boxes[:, 2:] - frame.boxes[:, :2]
        kept = (frame.visible > 0) & (sides >= SMALLEST_SIDE_PX).all(axis=1)
        ignored = sample.ignored | (frame.visible < self._min_visibility)
        return Sample(
            image=frame.image,
            boxes_xyxy_px=frame.boxes[kept],
            labels=sample.labels[kept],
            ignored=ignored[kept],
            image_id=sample.image_id,
            original_size_hw=sample.original_size_hw,
        )


def letterbox_sample(sample: Sample, size_px: int) -> Sample:
    """A sample in a square of ``size_px``, as validation sees it."""
    letterbox = Letterbox.fit(_size_hw(sample.image), size_px)
    return replace(
        sample,
        image=letterbox.image(sample.image),
        boxes_xyxy_px=letterbox.boxes(sample.boxes_xyxy_px),
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """An image on its way through the geometric transforms.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: float32 (N, 4) xyxy in pixels, clipped to the image.
        visible: float32 (N,), the share of each box's area that no transform has cut off yet.
    """

    image: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray

    @classmethod
    def of(cls, sample: Sample) -> _Frame:
        return cls(sample.image, sample.boxes_xyxy_px, np.ones(len(sample.labels), np.float32))


def _letterbox(frame: _Frame, size_px: int) -> _Frame:
    letterbox = Letterbox.fit(_size_hw(frame.image), size_px)
    return replace(frame, image=letterbox.image(frame.image), boxes=letterbox.boxes(frame.boxes))


def _move(frame: _Frame, transform: Any) -> _Frame:
    """Apply a geometric transform to the image and its boxes, and clip them."""
    try:
        if len(frame.boxes) == 0:
            return replace(frame, image=transform(image=frame.image)["image"])
        moved = transform(image=frame.image, keypoints=_corners(frame.boxes))
    except CropSizeError:
        height, width = frame.image.shape[:2]
        raise UserError(
            f"data.augment: RandomCrop cuts {transform.width}x{transform.height} px from an image "
            f"of {width}x{height} px; make it smaller or set pad_if_needed: true."
        ) from None
    if moved["image"] is frame.image:  # it did not fire
        return frame
    ellipse = getattr(transform, "rotate_method", None) == "ellipse"
    boxes = _enclosing(moved["keypoints"], ellipse=ellipse)
    height, width = moved["image"].shape[:2]
    clipped = boxes.clip(0, np.array([width, height, width, height], np.float32))
    cut = _area(clipped) / _area(boxes).clip(min=np.finfo(np.float32).tiny)
    return _Frame(moved["image"], clipped, frame.visible * cut)


def _corners(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) -> corners as Albumentations' keypoints (4 N, 5): x, y, z, angle, scale.

    A keypoint counts from the centre of the first pixel, a box from its edge: half a pixel less.
    """
    points = np.zeros((len(boxes_xyxy_px), 4, 5), np.float32)
    points[:, :, 0] = boxes_xyxy_px[:, [0, 2, 2, 0]] - 0.5
    points[:, :, 1] = boxes_xyxy_px[:, [1, 1, 3, 3]] - 0.5
    return points.reshape(-1, 5)  # (N, 4, 5) -> (4 N, 5)


def _enclosing(keypoints: np.ndarray, *, ellipse: bool) -> np.ndarray:
    """The upright boxes (N, 4) around moved corners (4 N, 5), or around the ellipses inside them.

    An affine map makes a parallelogram of a box: with p and q half of its sides as vectors, it
    reaches |p| + |q| from its centre, and the ellipse in it sqrt(p^2 + q^2).
    """
    corners = keypoints[:, :2].reshape(-1, 4, 2).astype(np.float32) + 0.5  # (4 N, 2) -> (N, 4, 2)
    centre = corners.mean(axis=1)
    p = (corners[:, 1] - corners[:, 0]) / 2  # (N, 2)
    q = (corners[:, 3] - corners[:, 0]) / 2
    reach = np.hypot(p, q) if ellipse else np.abs(p) + np.abs(q)
    return np.concatenate([centre - reach, centre + reach], axis=1)


def _area(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    return (boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]).prod(axis=1)


def _size_hw(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def build_transform(settings: Mapping[str, Any]) -> Any:
    """The Albumentations transform that {"type", "p", arguments} describes.

    Raises:
        UserError: an unknown type or argument, or a value that Albumentations refuses.
    """
    name = settings["type"]
    if name not in TRANSFORMS:
        raise UserError(
            f"data.augment: there is no transform {name!r}{_did_you_mean(name, TRANSFORMS)}; "
            f"choose among {', '.join(TRANSFORMS)}."
        )
    transform = getattr(albumentations, name)
    arguments = {key: value for key, value in settings.items() if key != "type"}
    _check_arguments(name, arguments, argument_names(name))
    if name == STRETCH:
        arguments = {"height": 1, "width": 1, "area_for_downscale": "image"} | arguments
    if "fill" in transform.InitSchema.model_fields:
        arguments.setdefault("fill", FILL_COLOUR_RGB)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # it would go on with its defaults
            return transform(**arguments)
    except (ValueError, TypeError, UserWarning) as error:
        raise UserError(f"data.augment: {name}: {_reason(error)}") from None


def argument_names(name: str) -> tuple[str, ...]:
    """The arguments that a transform takes in a config, "p" included."""
    fields = getattr(albumentations, name).InitSchema.model_fields
    own = {"strict"} | ({"height", "width"} if name == STRETCH else set())
    return tuple(field for field in fields if field not in own)


def _check_arguments(name: str, arguments: Mapping[str, Any], known: Sequence[str]) -> None:
    for argument in arguments:
        if argument not in known:
            raise UserError(
                f"data.augment: {name} has no argument {argument!r}"
                f"{_did_you_mean(argument, known)}; it takes {', '.join(known)}."
            )
    mirrored = (cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP)
    if name in GEOMETRIC and arguments.get("border_mode") in mirrored:
        raise UserError(
            f"data.augment: {name}: border_mode {arguments['border_mode']} repeats objects without "
            f"their boxes; use 0 (one colour) or 1 (the edge's colours)."
        )


def _did_you_mean(given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _reason(error: Exception) -> str:
    """The first complaint of Albumentations in one line."""
    if not isinstance(error.__cause__, ValidationError):
        return " ".join(str(error).split())
    first = error.__cause__.errors()[0]
    argument = f"{first['loc'][0]} = {first['input']!r}: " if first["loc"] else ""
    return f"{argument}{first['msg']}."
