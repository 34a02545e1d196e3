"""Training transforms: each chosen and set by name, their randomness a function of the sample.

Albumentations' transforms are called one by one, without its `Compose`: boxes travel as the
corners of rectangles and keep to our own rules, and every transform draws from a generator that
is seeded per sample (Compose mixes the number of the worker into its seeds).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yolo.data.transforms import COLOUR, CUT, GEOMETRIC, STRETCH, CropSizeError, build_transform
from yolo.errors import UserError
from yolo.letterbox import Letterbox
from yolo.records import Sample

SMALLEST_SIDE_PX = 1.0
"""A box of which less is left is dropped."""


class Augment:
    """Turns a sample into a random square variant of itself.

    The image is letterboxed to its final size first, unless ``Resize`` fires and stretches it, or
    ``RandomResizedCrop`` cuts a part of it and stretches that (the first one listed that fires);
    then come the geometric transforms, then those of colour. Empty areas get the mean colour. A
    box that a transform cuts keeps the share of its area that is still visible; a box of which too
    little is left becomes an ignored region, and one without a visible pixel is dropped.

    Args:
        transforms: of each its "type" (one of `transforms.TRANSFORMS`), "p" and arguments of
            Albumentations' transform of that name. The two above take no size: it is the network's.
        min_visibility: share of its area, 0..1, below which a box becomes an ignored region.

    Raises:
        UserError: an unknown transform or argument, or a value that it does not take.
    """

    def __init__(
        self, *, transforms: Sequence[Mapping[str, Any]], min_visibility: float = 0.1
    ) -> None:
        built = [(settings["type"], build_transform(settings)) for settings in transforms]
        self._sizing = [(name, transform) for name, transform in built if name in (STRETCH, CUT)]
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
        sizing = [transform for _, transform in self._sizing]
        for transform in (*sizing, *self._geometric, *self._colour):
            transform.set_random_state(generator, py_random)

    def _to_square(self, frame: _Frame, size_px: int) -> _Frame:
        for name, transform in self._sizing:
            if transform.should_apply():
                fit = _stretch if name == STRETCH else _cut
                return fit(frame, transform, size_px)
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


class WholeImageAugment(Augment):
    """Augmentation for classifiers: whatever happens, the image keeps its one label.

    The sample's single box stands for the whole image, and does so again afterwards: no transform
    can cut it off, drop it or have it ignored.

    Args:
        transforms: see ``Augment``.
    """

    def __init__(self, *, transforms: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(transforms=transforms)

    def __call__(self, sample: Sample, *, size_px: int, seed: tuple[int, ...]) -> Sample:
        """A variant of ``sample``, as ``Augment`` makes it, with one box over all of it."""
        assert len(sample.labels) == 1, "an image of a classifier has one label"
        bare = replace(sample, boxes_xyxy_px=np.zeros((0, 4), np.float32))
        bare = replace(bare, labels=sample.labels[:0], ignored=sample.ignored[:0])
        changed = super().__call__(bare, size_px=size_px, seed=seed)
        whole = np.array([[0, 0, size_px, size_px]], np.float32)
        return replace(changed, boxes_xyxy_px=whole, labels=sample.labels, ignored=sample.ignored)


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


def _stretch(frame: _Frame, transform: Any, size_px: int) -> _Frame:
    """Albumentations' ``Resize``, which has fired."""
    transform.height = transform.width = size_px
    height, width = _size_hw(frame.image)
    scale = np.array([size_px / width, size_px / height] * 2, np.float32)
    return replace(frame, image=transform.apply(frame.image), boxes=frame.boxes * scale)


def _cut(frame: _Frame, transform: Any, size_px: int) -> _Frame:
    """Albumentations' ``RandomResizedCrop``, which has fired.

    The boxes follow the cut's own numbers: its keypoints would be half a pixel of the original off.
    """
    transform.size = (size_px, size_px)
    drawn = transform.get_params_dependent_on_data({"shape": frame.image.shape}, {})
    x1, y1, x2, y2 = drawn["crop_coords"]
    boxes = frame.boxes - np.array([x1, y1] * 2, np.float32)
    clipped = boxes.clip(0, np.array([x2 - x1, y2 - y1] * 2, np.float32))
    scale = np.array([size_px / (x2 - x1), size_px / (y2 - y1)] * 2, np.float32)
    image = transform.apply(frame.image, crop_coords=(x1, y1, x2, y2))
    return _Frame(image, clipped * scale, frame.visible * _share_kept(boxes, clipped))


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
    return _Frame(moved["image"], clipped, frame.visible * _share_kept(boxes, clipped))


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


def _share_kept(boxes_xyxy_px: np.ndarray, clipped_xyxy_px: np.ndarray) -> np.ndarray:
    """What clipping left of each box's area, 0..1: (N, 4) twice -> (N,)."""
    tiny = np.finfo(np.float32).tiny
    return _area(clipped_xyxy_px) / _area(boxes_xyxy_px).clip(min=tiny)


def _area(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    return (boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]).prod(axis=1)


def _size_hw(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
