"""The way of a training sample from its image at full size to the network's square input.

Albumentations' transforms and our own are called one by one, without Albumentations' `Compose`:
boxes keep to our own rules, the geometric ones only give their maps, and every transform draws from
a generator that is seeded per sample (Compose mixes the number of the worker into its seeds).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from yolo.data.sampling import SampleKey, seeded_generator
from yolo.data.transforms.geometry import MEAN_COLOUR, LabelledImage, Layout, concatenate
from yolo.data.transforms.transform_list import (
    COLOUR,
    FLIP,
    GEOMETRIC,
    SAFE_CROP,
    SIZING,
    STRETCH,
    build_transform,
    draw_move,
)
from yolo.letterbox import Letterbox
from yolo.records import Sample


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Four images around a random point (YOLOv4, Bochkovskiy et al. 2020)."""

    p: float
    until_step: int  # the first optimizer step without it


@dataclass(frozen=True, slots=True)
class MixUp:
    """Two images blended (Zhang et al. 2018; with the boxes of both as objects of full weight)."""

    p: float
    alpha: float  # the first image's share is drawn from Beta(alpha, alpha)
    until_step: int  # the first optimizer step without it


@dataclass(frozen=True, slots=True)
class Mix:
    """The other images of a training sample: four in a mosaic, its own among them, one to blend in.

    The centre of the mosaic, in shares 0..1 of the square's side, lies anywhere from 1/4 to 3/4 on
    the canvas of twice the side of which the square is the middle.
    """

    tiles: tuple[Sample, ...] = ()  # top left, top right, bottom left, bottom right; () for none
    centre: tuple[float, float] = (0.5, 0.5)  # x and y where they meet
    other: Sample | None = None
    share: float = 1.0  # of the pixels that stay its own, 0..1


UNMIXED = Mix()


class Augment:
    """Turns a sample into a random square variant of itself, or of itself and others.

    The image is letterboxed to its final size first, unless ``Resize`` fires and stretches it, or
    ``RandomResizedCrop`` cuts a part of it and stretches that, or ``RandomSizedBBoxSafeCrop`` one
    that holds all boxes but ignored regions (the first one listed that fires), or a mosaic is made
    of it; then come the geometric transforms, then MixUp with another image that came the same way,
    then the transforms of colour. All that geometry is one map, and the image is painted through it
    once. A box of which too little stays visible becomes an ignored region, and one without a
    visible pixel, or less than 1 px wide or high, is dropped.

    Args:
        transforms: of each its "type" (one of `transform_list.TRANSFORMS`), "p" and its arguments;
            the three above take no size: it is the network's.
        min_visibility: share of its area, 0..1, below which a box becomes an ignored region.
        mosaic, mixup: make samples of several images; None does not.

    Raises:
        UserError: an argument has a value that its transform does not take.
    """

    def __init__(
        self,
        *,
        transforms: Sequence[Mapping[str, Any]],
        min_visibility: float = 0.1,
        mosaic: Mosaic | None = None,
        mixup: MixUp | None = None,
    ) -> None:
        built = [(settings["type"], build_transform(settings)) for settings in transforms]
        self._transforms = [transform for _, transform in built]
        self._sizing = [pair for pair in built if pair[0] in SIZING]
        self._geometric = [pair for pair in built if pair[0] in GEOMETRIC]
        self._colour = [transform for name, transform in built if name in COLOUR]
        self._min_visibility = min_visibility
        self.mosaic, self.mixup = mosaic, mixup
        # the first optimizer step whose samples need no other images
        self.mixes_until = max(mix.until_step if mix else 0 for mix in (mosaic, mixup))

    def make(self, key: SampleKey, load: Callable[[int], Sample], seed: int) -> Sample:
        """The training sample of a key, of images that ``load`` gives by their index."""
        sample, mix = load(key.index), self.draw_mix(key, load, seed)
        return self(sample, size_px=key.size_px, seed=(seed, key.epoch, key.place), mix=mix)

    def draw_mix(self, key: SampleKey, load: Callable[[int], Sample], seed: int) -> Mix:
        """The other images of a sample, which the run's seed decides."""
        if key.step >= self.mixes_until:
            return UNMIXED
        # 1 sets these draws apart from those of the transforms
        generator = seeded_generator(seed, key.epoch, key.place, 1)
        joins, blends = generator.random(2)
        among = key.neighbours or (key.index,)

        def partners(count: int) -> list[int]:  # all different if there are enough
            return generator.choice(among, count, replace=len(among) < count).tolist()

        mosaic, mixup, mix = self.mosaic, self.mixup, UNMIXED
        if mosaic is not None and key.step < mosaic.until_step and joins < mosaic.p:
            indices = [key.index, *partners(3)]
            tiles = tuple(load(index) for index in generator.permutation(indices).tolist())
            mix = Mix(tiles, (generator.random(), generator.random()))
        if mixup is not None and key.step < mixup.until_step and blends < mixup.p:
            other = load(partners(1)[0])
            mix = replace(mix, other=other, share=generator.beta(mixup.alpha, mixup.alpha))
        return mix

    def __call__(
        self, sample: Sample, *, size_px: int, seed: tuple[int, ...], mix: Mix = UNMIXED
    ) -> Sample:
        """A variant of ``sample`` of (size_px, size_px, 3): a pure function of all arguments.

        It has the sample's id, and the boxes of all images that it is mixed of. The geometric
        transforms move a mosaic as a whole; its images are letterboxed, never cut or stretched.
        """
        generator = seeded_generator(*seed)
        py_random = random.Random(int(generator.integers(2**63)))
        for transform in self._transforms:
            transform.set_random_state(generator, py_random)
        tiles = tuple(map(LabelledImage.of, mix.tiles))
        layout = Layout.mosaic(tiles, mix.centre, size_px) if tiles else self._fit(sample, size_px)
        square = self._moved(layout).painted()
        if mix.other is not None:
            other = self._moved(self._fit(mix.other, size_px)).painted()
            blended = cv2.addWeighted(square.image, mix.share, other.image, 1 - mix.share, 0)
            square = concatenate([square, other], blended)
        image = square.image
        for transform in self._colour:
            image = transform(image=image)["image"]
        boxes = square.boxes_xyxy_px
        kept = (square.visible > 0) & (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)  # px
        ignored = square.ignored | (square.visible < self._min_visibility)
        return replace(
            sample,
            image=image,
            boxes_xyxy_px=boxes[kept],
            labels=square.labels[kept],
            ignored=ignored[kept],
        )

    def _fit(self, sample: Sample, size_px: int) -> Layout:
        """The image in the network's square."""
        image = LabelledImage.of(sample)
        fired = (pair for pair in self._sizing if pair[1].should_apply())
        name, transform = next(fired, (None, None))
        if transform is None:
            return Layout.letterboxed(image, size_px)
        transform.size, transform.height, transform.width = (size_px, size_px), size_px, size_px
        if name == STRETCH:
            return Layout.stretched(image, size_px, transform.apply)
        height, width = image.size_hw
        # Albumentations rounds edges down: with a pixel more a box keeps all of its last one
        boxes = image.boxes_xyxy_px[~image.ignored] + np.array([0, 0, 1, 1])
        data = {"bboxes": boxes / np.array([width, height] * 2)}
        drawn = transform.get_params_dependent_on_data({"shape": image.image.shape}, data)
        x1, y1, x2, y2 = drawn["crop_coords"]
        # of a narrow image a cut of an extreme shape is rounded to nothing
        x1, y1 = min(x1, width - 1), min(y1, height - 1)
        part = image.crop(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
        whole = (0, 0, part.size_hw[1], part.size_hw[0])
        if name == SAFE_CROP:  # which does not average where it shrinks, as the others do
            shrinks = max(part.size_hw) > size_px
            transform.interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return Layout.stretched(part, size_px, partial(transform.apply, crop_coords=whole))

    def _moved(self, layout: Layout) -> Layout:
        for name, transform in self._geometric:
            if transform.should_apply():
                layout = _move(layout, name, transform)
        return layout


class WholeImageAugment(Augment):
    """Augmentation for classifiers: whatever happens, the image keeps its one label.

    The sample's single box stands for the whole image, and does so again afterwards: no transform
    can cut it off, drop it or have it ignored.
    """

    def __call__(
        self, sample: Sample, *, size_px: int, seed: tuple[int, ...], mix: Mix = UNMIXED
    ) -> Sample:
        """A variant of ``sample``, as ``Augment`` makes it, with one box over all of it."""
        assert len(sample.labels) == 1, "an image of a classifier has one label"
        changed = super().__call__(sample, size_px=size_px, seed=seed, mix=mix)
        whole = np.array([[0, 0, size_px, size_px]], np.float32)
        return replace(changed, boxes_xyxy_px=whole, labels=sample.labels, ignored=sample.ignored)


def letterbox_sample(sample: Sample, size_px: int) -> Sample:
    """A sample in a square of ``size_px``, as validation sees it."""
    height, width = sample.image.shape[:2]
    letterbox = Letterbox.fit((height, width), size_px)
    boxes = letterbox.boxes(sample.boxes_xyxy_px)
    return replace(sample, image=letterbox.image(sample.image), boxes_xyxy_px=boxes)


def _move(layout: Layout, name: str, transform: Any) -> Layout:
    """A square after a geometric transform that has fired, a square of its size again.

    It is painted on the way only where that cannot wait: before a transform that fills with another
    colour than the mean, and after that or one that cuts a part out.
    """
    if name == FLIP:
        return layout.flipped()
    size_hw = layout.size_hw
    move = draw_move(name, transform, size_hw)
    if move.size_hw == size_hw and np.array_equal(move.matrix, np.eye(3)):
        return layout
    if move.border != MEAN_COLOUR:
        layout = Layout((layout.painted(),), np.eye(3)[None], size_hw)
    layout = replace(
        layout.moved(move.matrix, move.size_hw),
        interpolation=getattr(transform, "interpolation", layout.interpolation),
        ellipse=layout.ellipse or getattr(transform, "rotate_method", None) == "ellipse",
    )
    if move.border != MEAN_COLOUR or move.cuts:
        return Layout.letterboxed(layout.painted(move.border), size_hw[0])
    return layout.fit(size_hw[0])
