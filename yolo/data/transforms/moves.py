"""What Albumentations' geometric transforms draw, as maps of a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yolo.data.transforms.scene import MEAN_COLOUR, Border, Scene, shift
from yolo.data.transforms.transform_list import CropSizeError
from yolo.errors import UserError

FLIP, TURN, CROP = "HorizontalFlip", "Rotate", "RandomCrop"


@dataclass(frozen=True, slots=True)
class Move:
    """What a transform drew.

    Attributes:
        matrix: float64 (3, 3), positions before -> positions after.
        size_hw: height and width of the result, in pixels.
        border: what shows where nothing was before.
        cuts: what lies beside the result is meant to be gone.
    """

    matrix: np.ndarray
    size_hw: tuple[int, int]
    border: Border
    cuts: bool = False


def apply_move(scene: Scene, name: str, transform: Any) -> Scene:
    """A square scene after a geometric transform that has fired, a square of its size again.

    The scene is painted on the way only where that cannot wait: around a transform that fills with
    another colour than the mean, and after one that cuts a part out.

    Args:
        scene: the square.
        name: the transform's type, one of `transforms.GEOMETRIC`.
        transform: Albumentations' own.

    Raises:
        UserError: a crop larger than the image.
    """
    if name == FLIP:
        return scene.flipped()
    size_hw = scene.size_hw
    move = _drawn(name, transform, size_hw)
    if move.size_hw == size_hw and np.array_equal(move.matrix, np.eye(3)):
        return scene
    if move.border != MEAN_COLOUR:
        scene = Scene((scene.painted(),), np.eye(3)[None], size_hw)
    scene = replace(
        scene.moved(move.matrix, move.size_hw),
        interpolation=getattr(transform, "interpolation", scene.interpolation),
        ellipse=scene.ellipse or getattr(transform, "rotate_method", None) == "ellipse",
    )
    if move.border != MEAN_COLOUR or move.cuts:
        return Scene.letterboxed(scene.painted(move.border), size_hw[0])
    return scene.fit(size_hw[0])


def _drawn(name: str, transform: Any, size_hw: tuple[int, int]) -> Move:
    if name == CROP:
        return _drawn_crop(transform, size_hw)
    drawn = transform.get_params_dependent_on_data({"shape": (*size_hw, 3)}, {})
    border = Border(transform.border_mode, _colour(transform.fill))
    matrix = _from_edge(drawn["matrix"])
    if name != TURN:
        return Move(matrix, drawn["output_shape"][:2], border)
    if not transform.crop_border:
        return Move(matrix, size_hw, border)
    x1, y1, x2, y2 = (drawn[key] for key in ("x_min", "y_min", "x_max", "y_max"))
    return Move(shift(-x1, -y1) @ matrix, (y2 - y1, x2 - x1), border, cuts=True)


def _drawn_crop(transform: Any, size_hw: tuple[int, int]) -> Move:
    try:
        drawn = transform.get_params_dependent_on_data({"shape": (*size_hw, 3)}, {})
    except CropSizeError:
        height, width = size_hw
        raise UserError(
            f"data.augment: RandomCrop cuts {transform.width}x{transform.height} px from an image "
            f"of {width}x{height} px; make it smaller or set pad_if_needed: true."
        ) from None
    x1, y1, x2, y2 = drawn["crop_coords"]
    padding = drawn["pad_params"]
    if padding is None:
        return Move(shift(-x1, -y1), (y2 - y1, x2 - x1), MEAN_COLOUR, cuts=True)
    matrix = shift(padding["pad_left"] - x1, padding["pad_top"] - y1)
    border = Border(transform.border_mode, _colour(transform.fill))
    return Move(matrix, (y2 - y1, x2 - x1), border, cuts=True)


def _colour(fill: float | tuple[float, ...]) -> tuple[float, ...]:
    """One number stands for all three channels."""
    return tuple(fill) if np.iterable(fill) else (float(fill),) * 3


def _from_edge(matrix: np.ndarray) -> np.ndarray:
    """Albumentations counts from the centre of the first pixel, a scene from its edge."""
    from_edge = matrix.copy()
    from_edge[:2, 2] += 0.5 - (matrix[:2, 0] + matrix[:2, 1]) / 2
    return from_edge
