"""Mosaic and MixUp: training samples of several images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from yolo.data.sampling import SampleKey
from yolo.data.transforms.scene import Picture, Scene, letterbox_map, shift
from yolo.records import Sample

MIX_STREAM = 1
"""Sets these draws apart from those of the transforms."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Four images around a random point (YOLOv4, Bochkovskiy et al. 2020).

    Attributes:
        p: probability.
        until_step: the first optimizer step without it.
    """

    p: float
    until_step: int


@dataclass(frozen=True, slots=True)
class MixUp:
    """Two images blended (Zhang et al. 2018; with the boxes of both as objects of full weight).

    Attributes:
        p: probability.
        alpha: the first image's share is drawn from Beta(alpha, alpha).
        until_step: the first optimizer step without it.
    """

    p: float
    alpha: float
    until_step: int


@dataclass(frozen=True, slots=True)
class Tiles:
    """The images of a mosaic.

    Attributes:
        samples: top left, top right, bottom left, bottom right.
        centre: where they meet, x and y as shares of the square's side, 0..1. On the canvas of
            twice the side, of which the square is the middle, that is anywhere from 1/4 to 3/4.
    """

    samples: tuple[Sample, ...]
    centre: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mix:
    """What one training sample is made of.

    Attributes:
        tiles: the images of its mosaic, its own among them; None leaves it alone.
        other: an image to blend in, or None.
        share: of the pixels that stay its own then, 0..1.
    """

    tiles: Tiles | None
    other: Sample | None
    share: float


def draw_mix(
    key: SampleKey,
    load: Callable[[int], Sample],
    *,
    mosaic: Mosaic | None,
    mixup: MixUp | None,
    seed: int,
) -> Mix | None:
    """Which images make a sample, or None where it stays alone: a function of key and seed.

    Args:
        key: the sample; says whether mosaic and MixUp are on.
        load: index -> sample.
        mosaic, mixup: their settings, where they may be on.
        seed: of the run.
    """
    if not (key.mosaic or key.mixup):
        return None
    seeds = np.random.SeedSequence((seed, key.epoch, key.place, MIX_STREAM))
    generator = np.random.Generator(np.random.PCG64(seeds))
    joins, blends = generator.random(2)
    tiles, other, share = None, None, 1.0
    if key.mosaic and mosaic is not None and joins < mosaic.p:
        indices = [key.index, *_partners(key, 3, generator)]
        own = (load(index) for index in generator.permutation(indices).tolist())
        tiles = Tiles(tuple(own), (generator.random(), generator.random()))
    if key.mixup and mixup is not None and blends < mixup.p:
        other = load(_partners(key, 1, generator)[0])
        share = generator.beta(mixup.alpha, mixup.alpha)
    return None if tiles is None and other is None else Mix(tiles, other, share)


def _partners(key: SampleKey, count: int, generator: np.random.Generator) -> list[int]:
    """Indices of other images, all different if there are enough."""
    among = key.neighbours or (key.index,)
    return generator.choice(among, count, replace=len(among) < count).tolist()


def mosaic_scene(tiles: Tiles, size_px: int) -> Scene:
    """Four images, each letterboxed in size, that meet with a corner in a square of ``size_px``."""
    x, y = (round(share * size_px) for share in tiles.centre)
    matrices = [_place(sample, at, x, y, size_px) for at, sample in enumerate(tiles.samples)]
    pictures = tuple(Picture.of(sample) for sample in tiles.samples)
    return Scene(pictures, np.stack(matrices), (size_px, size_px))


def _place(sample: Sample, at: int, x: int, y: int, size_px: int) -> np.ndarray:
    """The map (3, 3) of an image that touches the point (x, y) from place 0..3 of ``Tiles``."""
    source_hw = sample.image.shape[0], sample.image.shape[1]
    fit, matrix = letterbox_map(source_hw, size_px)
    height, width = fit.scaled_hw
    left = x if at % 2 else x - width
    top = y if at >= 2 else y - height
    return shift(left - fit.pad_left, top - fit.pad_top) @ matrix


def blend(picture: Picture, other: Picture, share: float) -> Picture:
    """Two painted squares in one, with the boxes of both."""
    return replace(
        picture,
        image=cv2.addWeighted(picture.image, share, other.image, 1 - share, 0),
        boxes=np.concatenate([picture.boxes, other.boxes]),
        labels=np.concatenate([picture.labels, other.labels]),
        ignored=np.concatenate([picture.ignored, other.ignored]),
        visible=np.concatenate([picture.visible, other.visible]),
    )
