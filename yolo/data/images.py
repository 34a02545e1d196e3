"""Image files -> uint8 RGB arrays."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from yolo.errors import UserError

LARGEST_IMAGE_PX = 178_956_970
"""Larger images are refused before they are decoded: where Pillow, too, sees an attack."""

# OpenCV would tell of damaged files in lines of its own, beside our sentence.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

QUARTER_TURNS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""

JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"


def decode(path: Path, expected_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image of any depth and number of channels; transparency is dropped.

    Orientation: the EXIF rotation is honoured, unless the size of the image as it is stored is the
    expected one and its rotated size is not (annotations drawn by a tool that knows no EXIF).

    Args:
        path: the file.
        expected_hw: the size that the annotations speak of, in pixels; None takes any.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: the file is missing, unreadable, cut off, no image, too large or of another size.
    """
    content = _read(path)
    _check_header(path, content)
    image = _decode_rotated(path, content)
    if expected_hw is None or image.shape[:2] == expected_hw:
        return image
    stored = _decode_cv2(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if stored is not None and stored.shape[:2] == expected_hw:
        return stored
    raise UserError(
        f"{path} is {_size_text(image.shape[:2])}, but its annotations are for an image of "
        f"{_size_text(expected_hw)}: correct the size in the annotations or restore the image."
    )


def size_hw(path: Path, expected_hw: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width in pixels from the header alone.

    As stored, EXIF aside, unless the EXIF rotation gives the image ``expected_hw``: the size that
    `decode` gives when it is asked for the result.

    Raises:
        UserError: the file is missing, unreadable or no image.
    """
    try:
        with Image.open(path) as image:
            stored = image.height, image.width
            if stored == expected_hw or stored[::-1] != expected_hw:
                return stored
            turned = image.getexif().get(ExifTags.Base.Orientation) in QUARTER_TURNS
            return expected_hw if turned else stored
    except FileNotFoundError:
        raise UserError(f"the image {path} does not exist.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"the size of the image {path} cannot be read: {error}.") from None


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"the image {path} does not exist.") from None
    except OSError as error:
        raise UserError(f"the image {path} cannot be read: {error.strerror}.") from None
    if not content:
        raise UserError(f"the image {path} is an empty file.")
    return content


def _check_header(path: Path, content: bytes) -> None:
    """Refuse decompression bombs and JPEGs that are cut off (OpenCV would paint the rest grey)."""
    if content.startswith(JPEG_START) and content.rfind(JPEG_END) < 0:
        raise UserError(f"the image {path} is cut off: its JPEG data has no end; fetch it again.")
    try:
        width, height = _open(content).size
    except Image.DecompressionBombError:
        raise UserError(f"the image {path} has more than {LARGEST_IMAGE_PX:,} pixels.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return  # a format that Pillow does not know: OpenCV decides, with a limit of its own
    if height * width > LARGEST_IMAGE_PX:
        raise UserError(f"the image {path} has more than {LARGEST_IMAGE_PX:,} pixels.")


def _decode_rotated(path: Path, content: bytes) -> np.ndarray:
    image = _decode_cv2(content, cv2.IMREAD_COLOR)
    if image is not None:
        return image
    try:
        return np.array(ImageOps.exif_transpose(_open(content)).convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError):
        raise UserError(
            f"the image {path} cannot be decoded: it is damaged or of an unknown format."
        ) from None


def _open(content: bytes) -> Image.Image:
    """Pillow's view of a file; the pixels are not decoded yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content))


def _decode_cv2(content: bytes, flags: int) -> np.ndarray | None:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _size_text(size_hw: tuple[int, ...]) -> str:
    return f"{size_hw[1]}x{size_hw[0]} px (width x height)"
