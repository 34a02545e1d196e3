"""Decoded training images, shrunk to what the network needs, kept in memory.

A cache, here or on disk, is only that: with or without what it holds, an image has the same pixels.
So it may be lost, deleted or full at any time, and training goes on.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.letterbox import Letterbox
from yolo.records import Sample

CHANNELS = 3

CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""A container's own limit on Linux: control groups of version 2 and of version 1."""

_log = logging.getLogger(__name__)


Kept = tuple[np.ndarray, tuple[int, int]]
"""What is kept of an image: uint8 (H, W, 3), shrunk, and its height and width before."""


class ImageCache(ABC):
    """The images of a data set, none larger than needed, each decoded only once.

    Args:
        dataset: the images.
        side_px: the longer side that larger images are shrunk to: the most that training asks for.
        limit_bytes: the most space; images beyond it are decoded each time.
        setting: what messages call it, and with "_limit_gb" behind it the limit.
    """

    def __init__(
        self, dataset: DetectionDataset, *, side_px: int, limit_bytes: int, setting: str = "cache"
    ) -> None:
        self._dataset = dataset
        self._side_px = side_px
        self._limit_bytes = limit_bytes
        self._setting = setting

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, index: int) -> Sample:
        """The image with its longer side ``side_px`` at most, with its truth in its own pixels."""
        key = self._key(index)
        kept = self._read(key)
        if kept is None:
            sample = shrink(self._dataset.load(index), self._side_px)
            if self._key(index) == key:  # else the file changed while it was read
                self._write(key, (sample.image, sample.original_size_hw))
            return sample
        # of the original only the size counts: an array that takes no memory
        image, original_hw = kept
        original = np.broadcast_to(np.uint8(0), (*original_hw, CHANNELS))
        return _scaled(self._dataset.sample(index, original), image)

    @abstractmethod
    def _key(self, index: int) -> Any:
        """What names the present content of an image; None if it cannot be read."""

    @abstractmethod
    def _read(self, key: Any) -> Kept | None:
        """What is kept under a key; the array is the caller's own."""

    @abstractmethod
    def _write(self, key: Any, kept: Kept) -> None:
        """Keep an image if there is room."""


def shrink(sample: Sample, side_px: int) -> Sample:
    """The sample with its longer side ``side_px``, its shape kept; a smaller one as it is."""
    size_hw = sample.image.shape[:2]
    small_hw = shrunk_hw(size_hw, side_px)
    if small_hw == size_hw:
        return sample
    image = cv2.resize(sample.image, small_hw[::-1], interpolation=cv2.INTER_AREA)
    return _scaled(sample, image)


def shrunk_hw(size_hw: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """The size of an image whose longer side is ``side_px`` at most, as the letterbox rounds it."""
    height, width = size_hw
    if max(height, width) <= side_px:
        return height, width
    return Letterbox.fit((height, width), side_px).scaled_hw


def _scaled(sample: Sample, image: np.ndarray) -> Sample:
    """The sample with its image in another size; the boxes stay inside in spite of rounding."""
    (from_h, from_w), (to_h, to_w) = sample.image.shape[:2], image.shape[:2]
    scale = np.array([to_w / from_w, to_h / from_h] * 2, np.float32)
    boxes = np.minimum(sample.boxes_xyxy_px * scale, np.array([to_w, to_h] * 2, np.float32))
    return replace(sample, image=image, boxes_xyxy_px=boxes)


class MemoryCache(ImageCache):
    """One block of memory, shared with forked processes, with a slot for every image that fits.

    Pages cost memory only once they are written. A slot is ready after its flag is set; two
    processes that fill the same one write the same bytes. The lock is there for processors that
    would else show a flag to other processes before the pixels.

    Raises:
        UserError: there is not so much memory.
    """

    def __init__(
        self, dataset: DetectionDataset, *, side_px: int, limit_bytes: int, setting: str = "cache"
    ) -> None:
        super().__init__(dataset, side_px=side_px, limit_bytes=limit_bytes, setting=setting)
        shrunk = (shrunk_hw(size_hw, side_px) for size_hw in dataset.annotations.sizes_hw.tolist())
        pixels = (height * width or side_px**2 for height, width in shrunk)  # 0: not known
        # whole words, for the tables behind the pixels
        sizes = np.array([-(-count * CHANNELS // 16) * 16 for count in pixels], np.int64)
        ends, count = np.cumsum(sizes), len(sizes)
        self._starts = ends - sizes
        self._slots = int(np.searchsorted(ends, limit_bytes, side="right"))
        tables = int(ends[self._slots - 1]) if self._slots else 0
        memory = _allocate(tables + count * 17, self._setting)
        self._pixels = np.frombuffer(memory, np.uint8, tables)
        self._shapes = np.frombuffer(memory, np.uint32, count * 4, offset=tables).reshape(count, 4)
        self._ready = np.frombuffer(memory, np.uint8, count, offset=tables + count * 16)
        self._lock = multiprocessing.Lock()
        if self._slots < count:
            fitting = f"{self._slots} of {count} images fit into memory of {self._setting}_limit_gb"
            _log.warning("%s: %s; the others are decoded each time", self._setting, fitting)

    def _key(self, index: int) -> int:
        return index

    def _read(self, key: int) -> Kept | None:
        with self._lock:
            ready = self._ready[key]
        if not ready:
            return None
        height, width, *original_hw = self._shapes[key].tolist()
        start = self._starts[key]
        image = self._pixels[start : start + height * width * CHANNELS].copy()
        return image.reshape(height, width, CHANNELS), (original_hw[0], original_hw[1])

    def _write(self, key: int, kept: Kept) -> None:
        if key >= self._slots:
            return
        start, (image, original_hw) = self._starts[key], kept
        self._pixels[start : start + image.size] = image.reshape(-1)
        self._shapes[key] = (*image.shape[:2], *original_hw)
        with self._lock:
            self._ready[key] = 1

    def __reduce__(self) -> Any:
        raise UserError(
            f"{self._setting}: 'ram' is for systems whose loader processes are forked and share "
            "memory, which this one's do not; use 'disk', or no workers."
        )


def _allocate(length: int, setting: str) -> mmap.mmap:
    """Zeros that forked processes share."""
    available = memory_bytes()
    with suppress(OSError):
        if available is None or length <= available:
            return mmap.mmap(-1, length)
    raise UserError(
        f"{setting}: 'ram' asks for {length / 1e9:.1f} GB, more than this machine can give; lower "
        f"{setting}_limit_gb or use 'disk'."
    )


def memory_bytes() -> int | None:
    """The most that all processes together can use; None where it is not known."""
    known = []
    with suppress(AttributeError, ValueError, OSError):  # not on every system
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            known.append(int(path.read_text()))
    return min(filter(None, known), default=None)
