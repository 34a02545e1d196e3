"""Training transforms: each chosen and set by name, their randomness a function of the sample.

Albumentations' transforms and our own are called one by one, without Albumentations' `Compose`:
boxes keep to our own rules, the geometric ones only give their maps, and every transform draws from
a generator that is seeded per sample (Compose mixes the number of the worker into its seeds).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from yolo.data.transforms.mosaic import Mix, blend, mosaic_scene
from yolo.data.transforms.moves import apply_move
from yolo.data.transforms.scene import Picture, Scene
from yolo.data.transforms.transform_list import COLOUR, CUT, GEOMETRIC, STRETCH, build_transform
from yolo.letterbox import Letterbox
from yolo.records import Sample

SMALLEST_SIDE_PX = 1.0
"""A box of which less is left is dropped."""


class Augment:
    """Turns a sample into a random square variant of itself.

    The image is letterboxed to its final size first, unless ``Resize`` fires and stretches it, or
    ``RandomResizedCrop`` cuts a part of it and stretches that (the first one listed that fires);
    then come the geometric transforms, then those of colour. All that geometry is one map, and the
    image is painted through it once. Empty areas get the mean colour. A box that the geometry cuts
    keeps the share of its area that is still visible; a box of which too little is left becomes an
    ignored region, and one without a visible pixel is dropped.

    Args:
        transforms: of each its "type" (one of `transforms.TRANSFORMS`), "p" and arguments of
            the transform of that name, Albumentations' or one of `colour.OWN_TRANSFORMS`. The two
            above take no size: it is the network's.
        min_visibility: share of its area, 0..1, below which a box becomes an ignored region.

    Raises:
        UserError: an unknown transform or argument, or a value that it does not take.
    """

    def __init__(
        self, *, transforms: Sequence[Mapping[str, Any]], min_visibility: float = 0.1
    ) -> None:
        built = [(settings["type"], build_transform(settings)) for settings in transforms]
        self._sizing = [(name, transform) for name, transform in built if name in (STRETCH, CUT)]
        self._geometric = [(name, transform) for name, transform in built if name in GEOMETRIC]
        self._colour = [transform for name, transform in built if name in COLOUR]
        self._min_visibility = min_visibility

    def __call__(self, sample: Sample, *, size_px: int, seed: tuple[int, ...]) -> Sample:
        """A variant of ``sample``: a pure function of the sample, the size and the seed.

        Args:
            sample: the original.
            size_px: side of the square.
            seed: numbers >= 0, such as (seed of the run, epoch, place in the epoch).

        Returns:
            A sample of (size_px, size_px, 3).
        """
        self._seed(seed)
        return self._finish(sample, self._moved(self._sized(sample, size_px)))

    def mixed(self, sample: Sample, mix: Mix, *, size_px: int, seed: tuple[int, ...]) -> Sample:
        """A variant of ``sample`` joined or blended with others: a pure function of all arguments.

        The geometric transforms move a mosaic as a whole; its images are letterboxed, never cut or
        stretched. What is blended in is a variant of its own, and those of colour change the sum.

        Args:
            sample: gives the result its id.
            mix: the images.
            size_px, seed: as above.

        Returns:
            A sample of (size_px, size_px, 3) with the boxes of all images.
        """
        self._seed(seed)
        if mix.tiles is None:
            scene = self._sized(sample, size_px)
        else:
            scene = mosaic_scene(mix.tiles, size_px)
        picture = self._moved(scene)
        if mix.other is not None:
            other = self._moved(self._sized(mix.other, size_px))
            picture = blend(picture, other, mix.share)
        return self._finish(sample, picture)

    def _seed(self, seed: tuple[int, ...]) -> None:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        py_random = random.Random(int(generator.integers(2**63)))
        named = (transform for _, transform in (*self._sizing, *self._geometric))
        for transform in (*named, *self._colour):
            transform.set_random_state(generator, py_random)

    def _sized(self, sample: Sample, size_px: int) -> Scene:
        picture = Picture.of(sample)
        for name, transform in self._sizing:
            if transform.should_apply():
                fit = _stretch if name == STRETCH else _cut
                return fit(picture, transform, size_px)
        return Scene.letterboxed(picture, size_px)

    def _moved(self, scene: Scene) -> Picture:
        for name, transform in self._geometric:
            if transform.should_apply():
                scene = apply_move(scene, name, transform)
        return scene.painted()

    def _finish(self, sample: Sample, picture: Picture) -> Sample:
        image = picture.image
        for transform in self._colour:
            image = transform(image=image)["image"]
        sides = picture.boxes[:, 2:] - picture.boxes[:, :2]
        kept = (picture.visible > 0) & (sides >= SMALLEST_SIDE_PX).all(axis=1)
        ignored = picture.ignored | (picture.visible < self._min_visibility)
        return Sample(
            image=image,
            boxes_xyxy_px=picture.boxes[kept],
            labels=picture.labels[kept],
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
    height, width = sample.image.shape[:2]
    letterbox = Letterbox.fit((height, width), size_px)
    return replace(
        sample,
        image=letterbox.image(sample.image),
        boxes_xyxy_px=letterbox.boxes(sample.boxes_xyxy_px),
    )


def _stretch(picture: Picture, transform: Any, size_px: int) -> Scene:
    """Albumentations' ``Resize``, which has fired."""
    transform.height = transform.width = size_px
    return Scene.stretched(picture, size_px, transform.apply)


def _cut(picture: Picture, transform: Any, size_px: int) -> Scene:
    """Albumentations' ``RandomResizedCrop``, which has fired."""
    transform.size = (size_px, size_px)
    drawn = transform.get_params_dependent_on_data({"shape": picture.image.shape}, {})
    x1, y1, x2, y2 = drawn["crop_coords"]
    # of a narrow image a cut of an extreme shape is rounded to nothing
    part = picture.cut(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
    whole = (0, 0, part.size_hw[1], part.size_hw[0])
    return Scene.stretched(part, size_px, partial(transform.apply, crop_coords=whole))
