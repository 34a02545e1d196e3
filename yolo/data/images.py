"""Image files -> uint8 RGB arrays."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from yolo.errors import UserError
from yolo.files import read_or_refuse

LARGEST_IMAGE_PX = 178_956_970
"""Larger images are refused before they are decoded: where Pillow, too, sees an attack."""

LARGEST_FILE_BYTES = 1 << 30  # the pixels of such an image as they are, with some room

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "JPEG2000", "PPM", "TIFF", "WEBP", "AVIF")
"""What is read at all, whatever a file's name. Of Pillow's other formats one runs a program (EPS),
and OpenCV's have no limit that would stop a bomb."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".gif", ".webp"),
    *(".avif", ".avifs", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"),
)
"""In lower case, all of `FORMATS`: which files of a folder are taken for images."""

UNREAD_SUFFIXES = (".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".dib")
"""Pictures, too, but no such file is read."""

FLIPS = {1: None, 2: 1, 3: -1, 4: 0, 5: None, 6: 1, 7: -1, 8: 0}
"""EXIF orientation -> how OpenCV flips an image upright, which is transposed first from 5 on."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
TIFF_STARTS = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"

UNREADABLE = "it is damaged, of an unknown format, or not of 8 or 16 bits without sign"

# OpenCV would report damaged files in lines of its own, beside our sentence.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded."""

    stored_hw: tuple[int, int]  # height and width of the pixels in the file
    orientation: int  # EXIF's, 1 to 8: how to turn them upright; 1 leaves them as they are

    def turns(self, expected_hw: tuple[int, int] | None, *, upright: bool = True) -> bool:
        """Whether `decode`, asked for the same, turns the image."""
        is_stored = expected_hw == self.stored_hw != self.upright_hw
        return upright and self.orientation != 1 and not is_stored

    @property
    def upright_hw(self) -> tuple[int, int]:
        """Height and width of the image as annotation tools show it."""
        return self.stored_hw[::-1] if self.orientation >= 5 else self.stored_hw

    def size_hw(
        self, expected_hw: tuple[int, int] | None = None, *, upright: bool = True
    ) -> tuple[int, int]:
        """Height and width of what `decode` gives, asked for the same; the expected ones if any."""
        return self.upright_hw if self.turns(expected_hw, upright=upright) else self.stored_hw


def decode(
    path: Path, expected_hw: tuple[int, int] | None = None, *, upright: bool = True
) -> np.ndarray:
    """Read an image of any number of channels as uint8 (H, W, 3) RGB, without its alpha.

    Of 16 bits per channel, or of a PNM's range, the upper 8 are taken. Where those would be black,
    or the pixels have a sign or a fraction, no rule tells what is white: a ``UserError``.

    It is turned upright as its EXIF orientation says, unless only the size of the image as it is
    stored is the expected one (annotations drawn by a tool that knows no EXIF).

    Args:
        expected_hw: the annotated size in pixels; None takes any.
        upright: False never turns.

    Raises:
        UserError: the file is missing, unreadable, cut off, no image, too large or of another size.
    """
    content = read_or_refuse("the image", path, LARGEST_FILE_BYTES)
    if not content:
        raise UserError(f"the image {path} is an empty file.")
    if content.startswith(JPEG_START) and content.rfind(JPEG_END) < 0:  # OpenCV would paint grey
        raise UserError(f"the image {path} is cut off: its JPEG data has no end; fetch it again.")
    try:
        with _silence():
            header = _header(io.BytesIO(content))
            if math.prod(header.stored_hw) > LARGEST_IMAGE_PX:
                raise Image.DecompressionBombError
            # before its pixels cost time and memory
            _check_size(path, header.size_hw(expected_hw, upright=upright), expected_hw)
            image = _decode_pixels(path, content)
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UserError(f"the image {path} has more than {LARGEST_IMAGE_PX:,} pixels.") from None
    except Exception:  # what Pillow raises on foreign bytes is anyone's guess
        raise UserError(f"the image {path} cannot be decoded: {UNREADABLE}.") from None
    orientation, turns = header.orientation, header.turns(expected_hw, upright=upright)
    if content.startswith(TIFF_STARTS):  # which both libraries have turned already
        undoing = {6: 8, 8: 6}  # every other one undoes itself
        orientation, turns = undoing.get(orientation, orientation), not turns
    if turns:
        image = cv2.transpose(image) if orientation >= 5 else image
        flip = FLIPS[orientation]
        image = image if flip is None else cv2.flip(image, flip)
    _check_size(path, image.shape[:2], expected_hw)
    return image


def _check_size(path: Path, found_hw: tuple[int, ...], expected_hw: tuple[int, int] | None) -> None:
    if expected_hw is not None and expected_hw != found_hw:
        raise UserError(
            f"{path} is {found_hw[1]}x{found_hw[0]} px (width x height), but its annotations are "
            f"for an image of {expected_hw[1]}x{expected_hw[0]} px (width x height): correct the "
            "size in the annotations or restore the image."
        )


def is_image(name: str) -> bool:
    """Whether a file is one that can be read, by its suffix."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def read_header(path: Path) -> Header:
    """Size and orientation, without decoding the image; a UserError if they cannot be read."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe waits for whoever writes
            raise IsADirectoryError("it is no file")
        with path.open("rb") as file, _silence():
            return _header(file)
    except FileNotFoundError:
        raise UserError(f"the image {path} does not exist.") from None
    except Exception as error:  # as above
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = UNREADABLE if isinstance(error, UnidentifiedImageError) else reason
        raise UserError(f"the size of the image {path} cannot be read: {reason}.") from None


def measure(
    path: Path, annotated_hw: tuple[int, int] | None = None, *, upright: bool = True
) -> tuple[tuple[int, int], str]:
    """Size in pixels of what `decode` gives, asked for the same, and the note on its EXIF if any.

    A UserError if the image's header cannot be read.
    """
    header = read_header(path)
    turns = header.turns(annotated_hw, upright=upright)
    note = "turned upright by EXIF" if turns else "left as stored, though EXIF turns them"
    size_hw = header.size_hw(annotated_hw, upright=upright)
    return size_hw, f"images {note}" if header.orientation != 1 else ""


def _header(file: BinaryIO) -> Header:
    with Image.open(file, formats=FORMATS) as image:
        size_hw, exif = (image.height, image.width), image.info.get("exif", b"")
        if image.format == "TIFF":  # its size may be that of the image upright
            tags = image.tag_v2  # type: ignore[attr-defined]
            size_hw = tags.get(ExifTags.Base.ImageLength), tags.get(ExifTags.Base.ImageWidth)
            return Header(size_hw, _known(tags.get(ExifTags.Base.Orientation)))
        if image.format == "PNG" and not exif:
            exif = _late_exif(file)
    found = Image.Exif()
    with contextlib.suppress(Exception):  # as above; damaged, it says nothing
        found.load(exif)
    return Header(size_hw, _known(found.get(ExifTags.Base.Orientation)))


def _known(orientation: object) -> int:
    return next((number for number in FLIPS if number == orientation), 1)


def _late_exif(png: BinaryIO) -> bytes:
    """An EXIF behind the pixels, in the last 64 KiB: Pillow finds it only by decoding these."""
    png.seek(max(0, png.seek(0, os.SEEK_END) - (1 << 16)))
    head, kind, rest = png.read().rpartition(b"eXIf")
    size = int.from_bytes(head[-4:], "big")
    exif, checksum = rest[:size], rest[size : size + 4]
    return exif if zlib.crc32(kind + exif) == int.from_bytes(checksum, "big") else b""


def _has_own_range(content: bytes) -> bool:
    """Whether a PNM names another white than 255 or 65535, which OpenCV overlooks."""
    if not content.startswith((b"P2", b"P3", b"P5", b"P6")):
        return False
    words = re.sub(rb"#[^\n]*", b" ", content[:4096]).split(maxsplit=4)
    white = int(words[3]) if len(words) > 3 and words[3].isdigit() else 255
    return white not in (255, 65535) and (white > 255 or content[1:2] in b"56")


def _decode_pixels(path: Path, content: bytes) -> np.ndarray:
    """By OpenCV, which is faster, or where it cannot by Pillow."""
    image = None if _has_own_range(content) else _decode_cv2(content)
    if image is None:
        return _decode_pillow(path, content)
    if image.dtype == np.uint16:
        if 0 < (most := int(image.max())) < 1 << 12:  # of a camera with 10 or 12 bits
            raise _unknown_white(path, f"16 bits per channel, none above {most:,}")
        image = (image // 256).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise _unknown_white(path, f"pixels of type {image.dtype}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _decode_cv2(content: bytes) -> np.ndarray | None:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if content.startswith((*TIFF_STARTS, b"\x89PNG", b"P")):  # the last is PNM: more than uint8
        flags |= cv2.IMREAD_ANYDEPTH
    with contextlib.suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return None


def _decode_pillow(path: Path, content: bytes) -> np.ndarray:
    opened = Image.open(io.BytesIO(content), formats=FORMATS)
    if opened.mode == "I" and opened.format == "PPM":  # by its own range to 65535
        return np.dstack(3 * [(np.asarray(opened, np.int32) >> 8).astype(np.uint8)])
    if opened.mode.startswith(("I", "F")):
        raise _unknown_white(path, f"pixels of type {np.array(opened).dtype}")
    return np.array(opened.convert("RGB"))


def _unknown_white(path: Path, what: str) -> UserError:
    return UserError(
        f"the image {path} has {what}, and nothing in it tells which value is white: convert all "
        "images of the data set in one way to 8 bits, such as value * 255 / white."
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
