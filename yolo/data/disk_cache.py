"""Decoded training images in a folder of files."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import multiprocessing
import struct
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import PIL
from filelock import FileLock

from yolo.data.formats.detection import DetectionDataset
from yolo.data.image_cache import CHANNELS, ImageCache, Kept, shrunk_hw
from yolo.data.images import LARGEST_FILE_BYTES
from yolo.files import atomic_path, atomic_write, read_regular

KEY_BYTES = 20
_HEADER = struct.Struct(f"<8s{KEY_BYTES}s5I")  # magic, key, height, width, those on disk, checksum
_MAGIC = b"YOLOpix1"

_log = logging.getLogger(__name__)


class DiskCache(ImageCache):
    """A file for each image, named by the content of the image's own file and the settings.

    A file is written atomically; what is read is checked against its header, and what fails is made
    anew. The bytes in the folder are counted at the start; after that every process adds what it
    writes to the same number, under a lock.

    Args:
        dataset, side_px, limit_bytes, setting: see ``ImageCache``.
        folder: shared by all data sets and settings, which ``limit_bytes`` counts together.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        *,
        side_px: int,
        limit_bytes: int,
        folder: Path,
        setting: str = "cache",
    ) -> None:
        super().__init__(dataset, side_px=side_px, limit_bytes=limit_bytes, setting=setting)
        self._root = folder
        settings = f"{_MAGIC!r} {side_px} {cv2.__version__} {PIL.__version__}"
        self._folder = folder / hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
        self._total_file = folder / "bytes"
        self._is_closed = multiprocessing.Value(ctypes.c_bool, False)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                atomic_write(self._total_file, str(_clean_and_count(folder)).encode())
        except (OSError, NotImplementedError) as problem:
            self._close(problem)

    def _key(self, index: int) -> bytes | None:
        try:
            content = read_regular(self._dataset.image_path(index), LARGEST_FILE_BYTES)
        except OSError:
            return None  # the data set has a sentence for it
        # the size in the annotations and the convention decide about the EXIF rotation
        size = struct.pack("<2q", *self._dataset.annotations.size_hw(index))
        drawn_on = b"" if self._dataset.upright else b"stored"
        return hashlib.blake2b(content, digest_size=KEY_BYTES, person=size, salt=drawn_on).digest()

    def _read(self, key: bytes | None) -> Kept | None:
        if key is None:
            return None
        path, largest = self._path(key), _HEADER.size + self._side_px**2 * CHANNELS
        try:
            content = np.fromfile(path, np.uint8) if path.stat().st_size <= largest else None
        except OSError:
            return None
        if content is None or len(content) < _HEADER.size:
            return None
        header, pixels = content[: _HEADER.size], content[_HEADER.size :]
        _, _, *shape, _ = _HEADER.unpack(header.data)
        height, width, *original_hw = shape
        fits = height * width * CHANNELS == pixels.size > 0
        if not fits or (height, width) != shrunk_hw(tuple(original_hw), self._side_px):
            return None
        if header.tobytes() != _header(key, shape, pixels.data):
            return None
        return pixels.reshape(height, width, CHANNELS), (original_hw[0], original_hw[1])

    def _write(self, key: bytes | None, kept: Kept) -> None:
        if key is None or self._is_closed.value:
            return
        image, original_hw = kept
        pixels = np.ascontiguousarray(image).data
        header = _header(key, (*image.shape[:2], *original_hw), pixels)
        try:
            if not self._reserve(len(header) + pixels.nbytes):
                limit = f"{self._setting}_limit_gb ({self._limit_bytes / 1e9:g} GB)"
                self._close(f"it has reached {limit}")
                return
            with atomic_path(self._path(key)) as temporary, temporary.open("wb") as file:
                file.write(header)
                file.write(pixels)
        except (OSError, NotImplementedError) as problem:
            self._close(problem)

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{key.hex()}.pixels"

    def _reserve(self, count: int) -> bool:
        """Count bytes in, for all processes; False where they do not fit."""
        with FileLock(self._root / "lock"):
            try:
                total = int(self._total_file.read_text())
            except (FileNotFoundError, ValueError):
                total = _clean_and_count(self._root)
            fits = total + count <= self._limit_bytes
            if fits:
                atomic_write(self._total_file, str(total + count).encode())
            return fits

    def _close(self, reason: str | Exception) -> None:
        """Write no more, in no process of this run, and log it once."""
        if isinstance(reason, Exception):
            reason = f"writing failed ({getattr(reason, 'strerror', None) or reason})"
        with self._is_closed.get_lock():
            if self._is_closed.value:
                return
            self._is_closed.value = True
        advice = "those missing there are decoded each time, and it may be deleted to make room"
        message = f"%s: no more images are kept in %s, for %s; {advice}"
        _log.warning(message, self._setting, self._root, reason)


def _header(key: bytes, shape: Sequence[int], pixels: memoryview) -> bytes:
    checksum = zlib.crc32(pixels, zlib.crc32(struct.pack("<4I", *shape)))
    return _HEADER.pack(_MAGIC, key, *shape, checksum)


def _clean_and_count(folder: Path) -> int:
    """The bytes of all images in a folder, once what was abandoned there is gone."""
    total = 0
    oldest = time.time() - 3600  # a temporary file from before is that of a process that is gone
    for path in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # renamed or deleted by another process
            status = path.stat()
            if path.name.startswith(".") and status.st_mtime < oldest:
                path.unlink()
            else:
                total += status.st_size
    return total
