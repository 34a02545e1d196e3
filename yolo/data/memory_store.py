"""Decoded images in a block of memory that processes share."""

from __future__ import annotations

import logging
import mmap
import multiprocessing
from typing import Any

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.image_stores import CHANNELS, Kept, shrunk_hw
from yolo.data.machine_memory import memory_bytes
from yolo.errors import UserError

_log = logging.getLogger(__name__)


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
    available = memory_bytes()
    try:
        if available is None or length <= available:
            return mmap.mmap(-1, length)
    except OSError:
        pass
    raise UserError(
        f"data.cache: 'ram' asks for {length / 1e9:.1f} GB, more than this machine can give; "
        f"lower data.cache_limit_gb or use 'disk'."
    )
