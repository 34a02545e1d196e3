"""Samples of several images: what mosaic and MixUp are made of, and where a mosaic's images lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolo.data.transforms.geometry import LabelledImage, Layout, letterbox_map, upright_map
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


def mosaic_layout(mix: Mix, size_px: int) -> Layout:
    """Four images, each letterboxed in size, that meet with a corner in a square of ``size_px``."""
    images = tuple(LabelledImage.of(sample) for sample in mix.tiles)
    x, y = (round(share * size_px) for share in mix.centre)
    matrices = []
    for place, image in enumerate(images):
        fit, matrix = letterbox_map(image.size_hw, size_px)
        height, width = fit.scaled_hw
        left = x if place % 2 else x - width
        top = y if place >= 2 else y - height
        matrices.append(upright_map(left - fit.pad_left, top - fit.pad_top) @ matrix)
    return Layout(images, np.stack(matrices), (size_px, size_px))
