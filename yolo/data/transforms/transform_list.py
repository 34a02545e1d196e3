"""The training transforms by name, Albumentations' and our own: built, checked, and their maps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import albumentations
import numpy as np
from pydantic import ValidationError

from yolo.data.transforms.colour import OWN_TRANSFORMS
from yolo.data.transforms.geometry import MEAN_COLOUR, Border, upright_map
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB

STRETCH, CROP_AND_STRETCH, SAFE_CROP = "Resize", "RandomResizedCrop", "RandomSizedBBoxSafeCrop"
SIZING = (STRETCH, CROP_AND_STRETCH, SAFE_CROP)
"""Bring the original image to the network's size, instead of the letterbox."""
FLIP, ROTATE, CROP = "HorizontalFlip", "Rotate", "RandomCrop"
GEOMETRIC = (FLIP, "Affine", ROTATE, CROP)
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
    "HSVJitter",
    "Haze",
    "IntensityStretch",
    "CoarseDropout",
    "Blur",
    "ChannelShuffle",
)
"""Transforms of the pixels alone; applied last, in the listed order, on the small image."""
TRANSFORMS = (*SIZING, *GEOMETRIC, *COLOUR)

SIZE_OF: dict[str, dict[str, Any]] = {
    STRETCH: {"height": 1, "width": 1, "area_for_downscale": "image"},
    CROP_AND_STRETCH: {"size": (1, 1), "area_for_downscale": "image"},
    SAFE_CROP: {"height": 1, "width": 1},
}
"""Arguments that stand for the network's size until an image comes, and our own default."""


def build_transform(settings: Mapping[str, Any]) -> Any:
    """The transform that {"type", "p", arguments} describes; the config knows the arguments."""
    name = settings["type"]
    arguments = {key: value for key, value in settings.items() if key != "type"}
    if name == CROP_AND_STRETCH and min(arguments.get("ratio", (1.0, 1.0))) <= 0:
        raise UserError(f"{name}: ratio {arguments['ratio']} must be above 0.")
    try:
        if name in OWN_TRANSFORMS:
            return OWN_TRANSFORMS[name](**arguments)
        transform = getattr(albumentations, name)
        arguments = SIZE_OF.get(name, {}) | arguments
        if "fill" in transform.InitSchema.model_fields:
            arguments.setdefault("fill", FILL_COLOUR_RGB)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # it would go on with its defaults
            built = transform(**arguments)
    except (ValueError, TypeError, UserWarning) as error:
        raise UserError(f"{name}: {_reason(error)}") from None
    _check_values(name, built)
    return built


def _check_values(name: str, transform: Any) -> None:
    """Refuse what Albumentations takes and fails on when it fires, in the middle of a training."""
    if name == "Posterize" and not _within(transform.num_bits, 1, 7):
        raise UserError(f"Posterize: num_bits {transform.num_bits} must be from 1 to 7.")
    fill = getattr(transform, "fill", 0)
    if not isinstance(fill, str) and not (np.size(fill) in (1, 3) and _within(fill, 0, 255)):
        raise UserError(
            f"{name}: fill {fill} must be one number from 0 to 255, or three: red, green, blue."
        )
    if name == "CoarseDropout":
        height, width = transform.hole_height_range, transform.hole_width_range
        if (height[1] >= 1) != (width[1] >= 1):
            raise UserError(
                f"CoarseDropout: hole_height_range {list(height)} and hole_width_range "
                f"{list(width)} must both be in pixels (1 or more), or both be shares of the image "
                "(below 1); give both."
            )


def _within(numbers: Any, least: float, most: float) -> bool:
    """Whether a number, or every one of nested lists, is in a range."""
    return bool(least <= np.min(numbers) and np.max(numbers) <= most)


def _reason(error: Exception) -> str:
    """The first complaint of pydantic, or of Albumentations, in one line."""
    complaint = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(complaint, ValidationError):
        return " ".join(str(error).split())
    first = complaint.errors()[0]
    argument = f"{first['loc'][0]} = {first['input']!r}: " if first["loc"] else ""
    return f"{argument}{first['msg']}."


@dataclass(frozen=True, slots=True)
class Move:
    """The map that a geometric transform drew."""

    matrix: np.ndarray  # float64 (3, 3), positions before -> positions after
    size_hw: tuple[int, int]  # of the result, in pixels
    border: Border  # what shows where nothing was before
    cuts: bool = False  # what lies beside the result is meant to be gone


def draw_move(name: str, transform: Any, size_hw: tuple[int, int]) -> Move:
    """Let a geometric transform other than a flip draw its map of an image of this size."""
    drawn = transform.get_params_dependent_on_data({"shape": (*size_hw, 3)}, {})
    if name == CROP:
        x1, y1, x2, y2 = drawn["crop_coords"]
        padding, size_hw = drawn["pad_params"], (y2 - y1, x2 - x1)
        if padding is None:
            return Move(upright_map(-x1, -y1), size_hw, MEAN_COLOUR, cuts=True)
        matrix = upright_map(padding["pad_left"] - x1, padding["pad_top"] - y1)
        return Move(matrix, size_hw, _border(transform), cuts=True)
    matrix = drawn["matrix"].copy()
    # Albumentations counts from the centre of the first pixel, we from its edge
    matrix[:2, 2] += 0.5 - (drawn["matrix"][:2, 0] + drawn["matrix"][:2, 1]) / 2
    if name != ROTATE:
        return Move(matrix, drawn["output_shape"][:2], _border(transform))
    if not transform.crop_border:
        return Move(matrix, size_hw, _border(transform))
    x1, y1, x2, y2 = (drawn[key] for key in ("x_min", "y_min", "x_max", "y_max"))
    return Move(upright_map(-x1, -y1) @ matrix, (y2 - y1, x2 - x1), _border(transform), cuts=True)


def _border(transform: Any) -> Border:
    fill = transform.fill  # one number stands for all three channels
    colour = tuple(fill) if np.iterable(fill) else (float(fill),) * 3
    return Border(transform.border_mode, colour)
