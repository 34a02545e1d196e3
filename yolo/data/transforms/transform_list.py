"""Training transforms by name, Albumentations' and our own: which there are, and their settings."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations
import cv2
import numpy as np
from albumentations.augmentations.crops.transforms import CropSizeError
from pydantic import ValidationError

from yolo.data.transforms.colour import OWN_TRANSFORMS
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB

__all__ = [
    "COLOUR",
    "CUT",
    "GEOMETRIC",
    "STRETCH",
    "TRANSFORMS",
    "CropSizeError",
    "argument_names",
    "build_transform",
]

STRETCH, CUT = "Resize", "RandomResizedCrop"
"""Transforms that bring the original image to the network's size, instead of the letterbox."""
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
    "HSVJitter",
    "Haze",
    "IntensityStretch",
    "CoarseDropout",
    "Blur",
    "ChannelShuffle",
)
"""Transforms of the pixels alone; applied last, in the listed order, on the small image."""
TRANSFORMS = (STRETCH, CUT, *GEOMETRIC, *COLOUR)

SIZE_OF: dict[str, dict[str, Any]] = {STRETCH: {"height": 1, "width": 1}, CUT: {"size": (1, 1)}}
"""Arguments that stand for the network's size until an image comes."""


def build_transform(settings: Mapping[str, Any]) -> Any:
    """The transform that {"type", "p", arguments} describes.

    Raises:
        UserError: an unknown type or argument, or a value that the transform refuses.
    """
    name = settings["type"]
    if name not in TRANSFORMS:
        raise UserError(
            f"data.augment: there is no transform {name!r}{_did_you_mean(name, TRANSFORMS)}; "
            f"choose among {', '.join(TRANSFORMS)}."
        )
    arguments = {key: value for key, value in settings.items() if key != "type"}
    _check_arguments(name, arguments, argument_names(name))
    if name in OWN_TRANSFORMS:
        try:
            return OWN_TRANSFORMS[name](**arguments)
        except ValidationError as error:
            raise UserError(f"data.augment: {name}: {_first_of(error)}") from None
    transform = getattr(albumentations, name)
    if name in SIZE_OF:
        arguments = SIZE_OF[name] | {"area_for_downscale": "image"} | arguments
    if "fill" in transform.InitSchema.model_fields:
        arguments.setdefault("fill", FILL_COLOUR_RGB)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # it would go on with its defaults
            built = transform(**arguments)
    except (ValueError, TypeError, UserWarning) as error:
        raise UserError(f"data.augment: {name}: {_reason(error)}") from None
    _check_values(name, built)
    return built


def argument_names(name: str) -> tuple[str, ...]:
    """The arguments that a transform takes in a config, "p" included."""
    if name in OWN_TRANSFORMS:
        return tuple(OWN_TRANSFORMS[name].model_fields)
    fields = getattr(albumentations, name).InitSchema.model_fields
    own = {"strict", *SIZE_OF.get(name, ())}
    return tuple(field for field in fields if field not in own)


def _check_arguments(name: str, arguments: Mapping[str, Any], known: Sequence[str]) -> None:
    for argument in arguments:
        if argument not in known:
            raise UserError(
                f"data.augment: {name} has no argument {argument!r}"
                f"{_did_you_mean(argument, known)}; it takes {', '.join(known)}."
            )
    if name == CUT and min(arguments.get("ratio", (1.0, 1.0))) <= 0:
        raise UserError(f"data.augment: {name}: ratio {arguments['ratio']} must be above 0.")
    mirrored = (cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP)
    if name in GEOMETRIC and arguments.get("border_mode") in mirrored:
        raise UserError(
            f"data.augment: {name}: border_mode {arguments['border_mode']} repeats objects without "
            f"their boxes; use 0 (one colour) or 1 (the edge's colours)."
        )


def _check_values(name: str, transform: Any) -> None:
    """Refuse what Albumentations takes and fails on when it fires, in the middle of a training."""
    if name == "Posterize" and not _within(transform.num_bits, 1, 7):
        raise UserError(
            f"data.augment: Posterize: num_bits {transform.num_bits} must be from 1 to 7."
        )
    fill = getattr(transform, "fill", 0)
    if not isinstance(fill, str) and not (np.size(fill) in (1, 3) and _within(fill, 0, 255)):
        raise UserError(
            f"data.augment: {name}: fill {fill} must be one number from 0 to 255, or three: red, "
            "green, blue."
        )
    if name == "CoarseDropout":
        height, width = transform.hole_height_range, transform.hole_width_range
        if (height[1] >= 1) != (width[1] >= 1):
            raise UserError(
                f"data.augment: CoarseDropout: hole_height_range {list(height)} and "
                f"hole_width_range {list(width)} must both be in pixels (1 or more), or both be "
                "shares of the image (below 1); give both."
            )


def _within(numbers: Any, least: float, most: float) -> bool:
    """Whether a number, or every one of a list or a list of lists, is in a range."""
    return bool(least <= np.min(numbers) and np.max(numbers) <= most)


def _did_you_mean(given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _reason(error: Exception) -> str:
    """The first complaint of Albumentations in one line."""
    if not isinstance(error.__cause__, ValidationError):
        return " ".join(str(error).split())
    return _first_of(error.__cause__)


def _first_of(error: ValidationError) -> str:
    first = error.errors()[0]
    argument = f"{first['loc'][0]} = {first['input']!r}: " if first["loc"] else ""
    return f"{argument}{first['msg']}."
