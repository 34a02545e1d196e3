"""Decoded training images, shrunk to what the network needs, kept in memory.

A cache, here or on disk, is only that: with or without what it holds, an image has the same pixels.
So it may be lost, deleted or full at any time, and training goes on.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.formats.detection import DetectionDataset
from yolo.data.machine_memory import memory_bytes
from yolo.errors import UserError
from yolo.letterbox import Letterbox
from yolo.records import Sample

CHANNELS = 3

_log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What is kept of an image: uint8 (H, W, 3), shrunk, and its height and width before."""

    image: np.ndarray
    original_hw: tuple[int, int]


class ImageCache(ABC):
    """The images of a data set, none larger than needed, each decoded only once.

    Args:
        dataset: the images.
        side_px: the longer side that they are shrunk to: the largest that training asks for.
            Smaller ones stay as they are.
        key_prefix: what stands before "cache" and "cache_limit_gb" in messages.
    """

    def __init__(self, dataset: DetectionDataset, *, side_px: int, key_prefix: str = "") -> None:
        self._dataset = dataset
        self._side_px = side_px
        self._setting = f"{key_prefix}cache"

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, index: int) -> Sample:
        """The image with its longer side ``side_px`` at most, with its truth in its own pixels.

        Raises:
            UserError: the image is missing, damaged or not of the size in the annotations.
        """
        key = self._key(index)
        kept = self._read(key)
        if kept is None:
            sample = shrink(self._dataset.load(index), self._side_px)
            if self._key(index) == key:  # else the file changed while it was read
                self._write(key, Kept(sample.image, sample.original_size_hw))
            return sample
        # of the original only the size counts: an array that takes no memory
        original = np.broadcast_to(np.uint8(0), (*kept.original_hw, CHANNELS))
        sample = self._dataset.sample(index, original)
        boxes = _scaled(sample.boxes_xyxy_px, kept.original_hw, kept.image.shape[:2])
        return replace(sample, image=kept.image, boxes_xyxy_px=boxes)

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
    boxes = _scaled(sample.boxes_xyxy_px, size_hw, small_hw)
    return replace(sample, image=image, boxes_xyxy_px=boxes)


def shrunk_hw(size_hw: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """The size of an image whose longer side is ``side_px`` at most, as the letterbox rounds it."""
    height, width = size_hw
    if max(height, width) <= side_px:
        return height, width
    return Letterbox.fit((height, width), side_px).scaled_hw


def _scaled(
    boxes_xyxy_px: np.ndarray, from_hw: tuple[int, ...], to_hw: tuple[int, ...]
) -> np.ndarray:
    """Boxes (N, 4) by the scale of each axis, inside the new size in spite of rounding."""
    if from_hw == to_hw:
        return boxes_xyxy_px
    scale = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]] * 2, np.float32)
    return np.minimum(boxes_xyxy_px * scale, np.array([to_hw[1], to_hw[0]] * 2, np.float32))


class MemoryCache(ImageCache):
    """One block of memory, shared with forked processes, with a slot for every image that fits.

    Pages cost memory only once they are written. A slot is ready after its flag is set; two
    processes that fill the same one write the same bytes. The lock is there for processors that
    would else show a flag to other processes before the pixels.

    Args:
        dataset, side_px, key_prefix: see ``ImageCache``.
        limit_bytes: the most memory; images beyond it are decoded each time.

    Raises:
        UserError: there is not so much memory.
    """

    def __init__(
        self, dataset: DetectionDataset, *, side_px: int, limit_bytes: int, key_prefix: str = ""
    ) -> None:
        super().__init__(dataset, side_px=side_px, key_prefix=key_prefix)
        sizes = _slot_bytes(dataset.annotations, side_px)
        ends, count = np.cumsum(sizes), len(sizes)
        self._starts = ends - sizes
        self._slots = int(np.searchsorted(ends, limit_bytes, side="right"))
        pixels = int(ends[self._slots - 1]) if self._slots else 0
        memory = _allocate(pixels + count * 17, self._setting)
        self._pixels = np.frombuffer(memory, np.uint8, pixels)
        self._shapes = np.frombuffer(memory, np.uint32, count * 4, offset=pixels).reshape(count, 4)
        self._ready = np.frombuffer(memory, np.uint8, count, offset=pixels + count * 16)
        self._lock = multiprocessing.Lock()
        if self._slots < count:
            _log.warning(
                "%s: %d of %d images fit into memory of %s_limit_gb; the others are decoded each "
                "time",
                self._setting,
                self._slots,
                count,
                self._setting,
            )

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
        return Kept(image.reshape(height, width, CHANNELS), tuple(original_hw))

    def _write(self, key: int, kept: Kept) -> None:
        if key >= self._slots:
            return
        start = self._starts[key]
        self._pixels[start : start + kept.image.size] = kept.image.reshape(-1)
        self._shapes[key] = (*kept.image.shape[:2], *kept.original_hw)
        with self._lock:
            self._ready[key] = 1

    def __reduce__(self) -> Any:
        raise UserError(
            f"{self._setting}: 'ram' is for systems whose loader processes are forked and share "
            "memory, which this one's do not; use 'disk', or no workers."
        )


def _slot_bytes(annotations: Annotations, side_px: int) -> np.ndarray:
    """Bytes that each image takes when shrunk, int64 (I,); of unknown sizes the most."""
    sizes = (shrunk_hw(size_hw, side_px) for size_hw in annotations.sizes_hw.tolist())
    pixels = (height * width or side_px * side_px for height, width in sizes)
    # whole words, for the tables behind the pixels
    return np.array([-(-count * CHANNELS // 16) * 16 for count in pixels], np.int64)


def _allocate(length: int, setting: str) -> mmap.mmap:
    """Zeros that forked processes share."""
    available = memory_bytes()
    try:
        if available is None or length <= available:
            return mmap.mmap(-1, length)
    except OSError:
        pass
    raise UserError(
        f"{setting}: 'ram' asks for {length / 1e9:.1f} GB, more than this machine can give; lower "
        f"{setting}_limit_gb or use 'disk'."
    )
