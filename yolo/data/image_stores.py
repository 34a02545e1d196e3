"""Where decoded images are kept: a block of memory that processes share, or a folder of files."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import mmap
import multiprocessing
import os
import struct
import time
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import PIL
from filelock import FileLock

from yolo.data.annotations import Annotations
from yolo.data.datasets.detection import DetectionDataset
from yolo.data.images import LARGEST_FILE_BYTES
from yolo.data.reading import read_regular
from yolo.errors import UserError
from yolo.letterbox import Letterbox

CHANNELS = 3
KEY_BYTES = 20
ABANDONED_AFTER_S = 3600.0
"""A temporary file of this age belongs to a process that is gone."""

_HEADER = struct.Struct(f"<8s{KEY_BYTES}s5I")  # magic, key, height, width, those on disk, checksum
_MAGIC = b"YOLOpix1"
_SUFFIX = ".pixels"

_log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What is kept of an image.

    Attributes:
        image: uint8 (H, W, 3), shrunk.
        original_hw: its height and width in pixels before.
    """

    image: np.ndarray
    original_hw: tuple[int, int]


def shrunk_hw(size_hw: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """The size of an image whose longer side is ``side_px`` at most, as the letterbox rounds it."""
    height, width = size_hw
    if max(height, width) <= side_px:
        return height, width
    return Letterbox.fit((height, width), side_px).scaled_hw


class Store(Protocol):
    """Where images are kept."""

    def key(self, index: int) -> Any:
        """What names the present content of an image; None if it cannot be read."""

    def read(self, key: Any) -> Kept | None:
        """What is kept under a key; the array is the caller's own."""

    def write(self, key: Any, kept: Kept) -> None:
        """Keep an image if there is room."""


class MemoryStore:
    """One block of shared memory with a slot for every image that fits into the limit.

    Pages cost memory only once they are written. A slot is ready after its flag is set; two
    processes that fill the same one write the same bytes. The lock is there for processors that
    would else show a flag to other processes before the pixels.
    """

    def __init__(self, annotations: Annotations, *, side_px: int, limit_bytes: int) -> None:
        sizes = _slot_bytes(annotations, side_px)
        ends = np.cumsum(sizes)
        count = len(sizes)
        self._starts = ends - sizes
        self._slots = int(np.searchsorted(ends, limit_bytes, side="right"))
        pixels = int(ends[self._slots - 1]) if self._slots else 0
        self._memory = _allocate(pixels + count * 17)
        self._pixels = np.frombuffer(self._memory, np.uint8, pixels)
        tables = np.frombuffer(self._memory, np.uint8, offset=pixels)
        self._shapes = tables[: count * 16].view(np.uint32).reshape(count, 4)
        self._ready = tables[count * 16 :]
        self._lock = multiprocessing.Lock()
        if self._slots < count:
            _log.warning(
                "data.cache: %d of %d images fit into memory of data.cache_limit_gb; the others "
                "are decoded each time",
                self._slots,
                count,
            )

    def key(self, index: int) -> int:
        return index

    def read(self, key: int) -> Kept | None:
        with self._lock:
            ready = self._ready[key]
        if not ready:
            return None
        height, width, *original_hw = self._shapes[key].tolist()
        start = self._starts[key]
        image = self._pixels[start : start + height * width * CHANNELS].copy()
        return Kept(image.reshape(height, width, CHANNELS), (original_hw[0], original_hw[1]))

    def write(self, key: int, kept: Kept) -> None:
        if key >= self._slots:
            return
        start = self._starts[key]
        self._pixels[start : start + kept.image.size] = kept.image.reshape(-1)
        self._shapes[key] = (*kept.image.shape[:2], *kept.original_hw)
        with self._lock:
            self._ready[key] = 1

    def __reduce__(self) -> Any:
        raise UserError(
            "data.cache: 'ram' is for systems whose loader processes are forked and share memory, "
            "which this one's do not; use 'disk', or data.workers 0."
        )


def _slot_bytes(annotations: Annotations, side_px: int) -> np.ndarray:
    """Bytes that each image takes when shrunk, int64 (I,); of unknown sizes the most."""
    sizes = (shrunk_hw(size_hw, side_px) for size_hw in annotations.sizes_hw.tolist())
    largest = side_px * side_px
    pixels = (height * width or largest for height, width in sizes)
    # whole words, for the tables behind the pixels
    return np.array([-(-count * CHANNELS // 16) * 16 for count in pixels], np.int64)


def _allocate(length: int) -> mmap.mmap:
    """Zeros that forked processes share."""
    try:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        available = length
    try:
        if length <= available:
            return mmap.mmap(-1, length)
    except OSError:
        pass
    raise UserError(
        f"data.cache: 'ram' asks for {length / 1e9:.1f} GB, more than this machine can give; "
        f"lower data.cache_limit_gb or use 'disk'."
    )


class DiskStore:
    """A file for each image, named by the content of the image's own file and the settings.

    A file is written under another name and then renamed, so that it is there whole or not at all;
    what is read is checked against its header, and what fails is made anew.

    The bytes in the folder are counted at the start; after that every process adds what it writes
    to the same number, under a lock.
    """

    def __init__(
        self, dataset: DetectionDataset, *, side_px: int, limit_bytes: int, folder: Path
    ) -> None:
        self._dataset = dataset
        self._side_px = side_px
        self._limit_bytes = limit_bytes
        self._root = folder
        settings = f"{_MAGIC!r} {side_px} {cv2.__version__} {PIL.__version__}"
        self._folder = folder / hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
        self._is_closed = multiprocessing.Value(ctypes.c_bool, False)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._set_total(_clean_and_count(folder))
        except (OSError, NotImplementedError) as problem:
            self._close(_reason(problem))

    def key(self, index: int) -> bytes | None:
        try:
            content = read_regular(self._dataset.image_path(index), LARGEST_FILE_BYTES)
        except OSError:
            return None  # the data set has a sentence for it
        # the size in the annotations decides about the EXIF rotation
        size = struct.pack("<2q", *self._dataset.annotations.size_hw(index))
        return hashlib.blake2b(content, digest_size=KEY_BYTES, person=size).digest()

    def read(self, key: bytes | None) -> Kept | None:
        if key is None:
            return None
        try:
            with self._path(key).open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length > _HEADER.size + self._side_px**2 * CHANNELS:
                    return None
                content = bytearray(length)
                if file.readinto(content) != length:
                    return None
        except OSError:
            return None
        return self._unpack(key, content)

    def write(self, key: bytes | None, kept: Kept) -> None:
        if key is None or self._is_closed.value:
            return
        pixels = np.ascontiguousarray(kept.image).data
        shape = (*kept.image.shape[:2], *kept.original_hw)
        header = _HEADER.pack(_MAGIC, key, *shape, _checksum(shape, pixels))
        temporary = self._folder / f".{uuid.uuid4().hex}"
        try:
            if not self._reserve(len(header) + pixels.nbytes):
                self._close(f"it has reached data.cache_limit_gb ({self._limit_bytes / 1e9:g} GB)")
                return
            with temporary.open("wb") as file:
                file.write(header)
                file.write(pixels)
            os.replace(temporary, self._path(key))
        except (OSError, NotImplementedError) as problem:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._close(_reason(problem))

    def _path(self, key: bytes) -> Path:
        return self._folder / (key.hex() + _SUFFIX)

    def _unpack(self, key: bytes, content: bytearray) -> Kept | None:
        """The image of a file, or None where anything about the file is wrong."""
        if len(content) < _HEADER.size:
            return None
        magic, its_key, *shape, checksum = _HEADER.unpack_from(content)
        height, width, *original_hw = shape
        length = height * width * CHANNELS
        whole = len(content) == _HEADER.size + length
        if (magic, its_key, whole, length > 0) != (_MAGIC, key, True, True):
            return None
        if (height, width) != shrunk_hw(tuple(original_hw), self._side_px):
            return None
        image = np.frombuffer(content, np.uint8, offset=_HEADER.size)
        if _checksum(shape, image.data) != checksum:
            return None
        return Kept(image.reshape(height, width, CHANNELS), (original_hw[0], original_hw[1]))

    def _reserve(self, count: int) -> bool:
        """Count bytes in, for all processes; False where they do not fit."""
        with self._lock():
            try:
                total = int(self._total_file.read_text())
            except (FileNotFoundError, ValueError):
                total = _clean_and_count(self._root)
            if total + count > self._limit_bytes:
                return False
            self._set_total(total + count)
            return True

    def _set_total(self, total: int) -> None:
        self._total_file.write_text(str(total))

    @property
    def _total_file(self) -> Path:
        return self._root / "bytes"

    def _lock(self) -> FileLock:
        return FileLock(self._root / "lock")

    def _close(self, reason: str) -> None:
        """Write no more, in no process of this run, and say so once."""
        with self._is_closed.get_lock():
            if self._is_closed.value:
                return
            self._is_closed.value = True
        _log.warning(
            "data.cache: no more images are kept in %s, for %s; those missing there are decoded "
            "each time, and it may be deleted to make room",
            self._root,
            reason,
        )


def _checksum(shape: Sequence[int], pixels: memoryview) -> int:
    return zlib.crc32(pixels, zlib.crc32(struct.pack("<4I", *shape)))


def _clean_and_count(folder: Path) -> int:
    """The bytes of all images in a folder, once what was abandoned there is gone."""
    total = 0
    oldest = time.time() - ABANDONED_AFTER_S
    for path in folder.glob("*/*"):
        try:
            status = path.stat()
            if path.name.startswith(".") and status.st_mtime < oldest:
                path.unlink()
                continue
        except FileNotFoundError:  # renamed or deleted by another process
            continue
        total += status.st_size
    return total


def _reason(problem: Exception) -> str:
    return f"writing failed ({getattr(problem, 'strerror', None) or problem})"
