"""Image files -> uint8 RGB arrays."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from yolo.errors import UserError
from yolo.files import read_or_refuse

LARGEST_IMAGE_PX = 178_956_970
"""Larger images are refused before they are decoded: where Pillow, too, sees an attack."""

LARGEST_FILE_BYTES = 1 << 30  # the pixels of such an image as they are, with some room

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "JPEG2000", "PPM", "TIFF", "WEBP", "AVIF")
"""What is read at all, whatever a file's name. Of Pillow's other formats one runs a program (EPS),
and OpenCV's have no limit that would stop a bomb."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""In lower case: which files of a folder are taken for images."""

QUARTER_TURNS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"

# OpenCV would report damaged files in lines of its own, beside our sentence.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(path: Path, expected_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image of any depth and number of channels as uint8 (H, W, 3) RGB, without its alpha.

    Orientation: the EXIF rotation is honoured, unless the size of the image as it is stored is the
    expected one and its rotated size is not (annotations drawn by a tool that knows no EXIF).
    ``expected_hw`` is the annotated size in pixels; None takes any.

    Raises:
        UserError: the file is missing, unreadable, cut off, no image, too large or of another size.
    """
    content = read_or_refuse("the image", path, LARGEST_FILE_BYTES)
    if not content:
        raise UserError(f"the image {path} is an empty file.")
    stored_hw = _stored_hw(path, content)
    if expected_hw is not None and expected_hw not in (stored_hw, stored_hw[::-1]):
        raise _other_size(path, stored_hw, expected_hw)  # before its pixels cost time and memory
    image = _decode_cv2(content, cv2.IMREAD_COLOR)
    if image is None:
        try:
            with _silence():
                opened = Image.open(io.BytesIO(content), formats=FORMATS)
                image = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
        except Exception:  # what Pillow raises on foreign bytes is anyone's guess
            raise _undecodable(path) from None
    if expected_hw is None or image.shape[:2] == expected_hw:
        return image
    stored = _decode_cv2(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if stored is not None and stored.shape[:2] == expected_hw:
        return stored
    raise _other_size(path, image.shape[:2], expected_hw)


def size_hw(path: Path, expected_hw: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width in pixels from the header alone.

    As stored, EXIF aside, unless the EXIF rotation gives the image ``expected_hw``: the size that
    `decode` gives when it is asked for the result.
    """
    try:
        if path.exists() and not path.is_file():  # to open a pipe waits for whoever writes
            raise IsADirectoryError("it is no file")
        with _silence(), Image.open(path, formats=FORMATS) as image:
            stored = image.height, image.width
            if stored == expected_hw or stored[::-1] != expected_hw:
                return stored
            turned = image.getexif().get(ExifTags.Base.Orientation) in QUARTER_TURNS
            return expected_hw if turned else stored
    except FileNotFoundError:
        raise UserError(f"the image {path} does not exist.") from None
    except Exception as error:  # as above
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the size of the image {path} cannot be read: {reason}.") from None


def _stored_hw(path: Path, content: bytes) -> tuple[int, int]:
    """Height and width by the header; a JPEG cut off, whose rest OpenCV paints grey, is refused."""
    if content.startswith(JPEG_START) and content.rfind(JPEG_END) < 0:
        raise UserError(f"the image {path} is cut off: its JPEG data has no end; fetch it again.")
    try:
        with _silence():
            width, height = Image.open(io.BytesIO(content), formats=FORMATS).size
    except Image.DecompressionBombError:
        height = width = LARGEST_IMAGE_PX
    except Exception:  # as above
        raise _undecodable(path) from None
    if height * width > LARGEST_IMAGE_PX:
        raise UserError(f"the image {path} has more than {LARGEST_IMAGE_PX:,} pixels.")
    return height, width


def _decode_cv2(content: bytes, flags: int) -> np.ndarray | None:
    try:
        with _silence():
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _undecodable(path: Path) -> UserError:
    return UserError(f"the image {path} cannot be decoded: it is damaged or of an unknown format.")


def _other_size(path: Path, found_hw: tuple[int, ...], expected_hw: tuple[int, int]) -> UserError:
    return UserError(
        f"{path} is {found_hw[1]}x{found_hw[0]} px (width x height), but its annotations are for "
        f"an image of {expected_hw[1]}x{expected_hw[0]} px (width x height): correct the size in "
        "the annotations or restore the image."
    )


class _StderrRedirect:
    """Keeps libjpeg and libpng quiet, which write of damage straight to file descriptor 2.

    The descriptor is the whole process': what other threads write to it meanwhile, for the
    milliseconds of decoding, is lost too. The first of several threads turns it away, and the last
    one back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._kept = -1  # a copy of the descriptor as it was; -1 if it was closed

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            try:
                self._kept = os.dup(2)
            except OSError:
                self._kept = -1
                return
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._kept >= 0:
                os.dup2(self._kept, 2)
                os.close(self._kept)


_codecs = _StderrRedirect()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No line of a codec's own beside our sentence, and none of Pillow's warnings."""
    with _codecs, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
