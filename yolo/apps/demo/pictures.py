"""Pictures of strangers: what is taken, what is refused, and how large they are shown."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from yolo.apps.report.drawing import save_image
from yolo.data.formats.shapes_drawing import draw_scene
from yolo.data.images import decode
from yolo.errors import UserError

LARGEST_UPLOAD_MIB = 20
LARGEST_PICTURE_PX = 50_000_000
"""A telephone's largest pictures pass; decoded, this is 150 MB."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Pillow's names of the formats that are taken; no other reader of its is tried."""

LONGEST_SHOWN_SIDE_PX = 1600


def read_picture(path: Path) -> np.ndarray:
    """Read an uploaded picture, after its size, format and number of pixels proved acceptable.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: it is refused; the sentence names the file without its folder.
    """
    path = Path(path)
    try:
        _check_size(path)
        _check_header(path)
        return decode(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise UserError(f"the picture {path} is gone: upload it again.") from None
    if size > LARGEST_UPLOAD_MIB * 2**20:
        raise UserError(
            f"the picture {path} has {size / 2**20:.0f} MiB, at most {LARGEST_UPLOAD_MIB} "
            "are allowed."
        )


def _check_header(path: Path) -> None:
    """Format and number of pixels, from the first bytes alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        width = height = LARGEST_PICTURE_PX  # more than Pillow itself allows
    except Exception:  # readers of damaged headers raise nearly anything
        raise UserError(
            f"the file {path} is no picture that can be read: choose a "
            f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} file."
        ) from None
    if width * height > LARGEST_PICTURE_PX:
        raise UserError(
            f"the picture {path} has more than {LARGEST_PICTURE_PX // 10**6} million pixels: "
            "make it smaller first."
        )


def shrink(image: np.ndarray, longest_side_px: int = LONGEST_SHOWN_SIDE_PX) -> np.ndarray:
    """An image (H, W, 3) made to have sides of at most ``longest_side_px``."""
    height, width = image.shape[:2]
    scale = longest_side_px / max(height, width)
    if scale >= 1:
        return image
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)


def write_examples(folder: Path, count: int = 6) -> Sequence[Path]:
    """Draw pictures of the shapes data set, each with several shapes, as JPEG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    seed = 0
    while len(paths) < count:
        scene = draw_scene(np.random.default_rng((0, 1, seed)))
        seed += 1
        if len(scene.annotations) >= 3:
            paths.append(folder / f"shapes_{len(paths) + 1}.jpg")
            save_image(paths[-1], scene.image)
    return paths
