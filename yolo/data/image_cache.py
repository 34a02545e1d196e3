"""Decoded training images, shrunk to what the network needs, kept in memory or on disk.

It is only a cache: with or without what it holds, an image has the same pixels. So it may be lost,
deleted or full at any time, and training goes on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from yolo.data.disk_store import DiskStore
from yolo.data.formats.detection import DetectionDataset
from yolo.data.image_stores import CHANNELS, Kept, Store, shrunk_hw
from yolo.data.memory_store import MemoryStore
from yolo.records import Sample


class CachedImages:
    """The images of a data set, none larger than needed, each decoded only once.

    Args:
        dataset: the images.
        side_px: the longer side that they are shrunk to: the largest that training asks for.
            Smaller ones stay as they are.
        limit_bytes: the most space; images beyond it are decoded each time.
        folder: where files are kept, shared by all data sets and settings; None keeps the images in
            memory, which processes that are forked later share.

    Raises:
        UserError: there is not so much memory.
    """

    def __init__(
        self, dataset: DetectionDataset, *, side_px: int, limit_bytes: int, folder: Path | None
    ) -> None:
        self._dataset = dataset
        self._side_px = side_px
        self._store: Store = (
            MemoryStore(dataset.annotations, side_px=side_px, limit_bytes=limit_bytes)
            if folder is None
            else DiskStore(dataset, side_px=side_px, limit_bytes=limit_bytes, folder=folder)
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, index: int) -> Sample:
        """The image with its longer side ``side_px`` at most, with its truth in its own pixels.

        Raises:
            UserError: the image is missing, damaged or not of the size in the annotations.
        """
        key = self._store.key(index)
        kept = self._store.read(key)
        if kept is not None:
            return self._with_truth(index, kept)
        sample = shrink(self._dataset.load(index), self._side_px)
        if self._store.key(index) == key:  # else the file changed while it was read
            self._store.write(key, Kept(sample.image, sample.original_size_hw))
        return sample

    def _with_truth(self, index: int, kept: Kept) -> Sample:
        # of the original only the size counts: an array that takes no memory
        original = np.broadcast_to(np.uint8(0), (*kept.original_hw, CHANNELS))
        sample = self._dataset.sample(index, original)
        boxes = _scaled(sample.boxes_xyxy_px, kept.original_hw, kept.image.shape[:2])
        return replace(sample, image=kept.image, boxes_xyxy_px=boxes)


def shrink(sample: Sample, side_px: int) -> Sample:
    """The sample with its longer side ``side_px``, its shape kept; a smaller one as it is.

    Its size is the one that the letterbox of ``side_px`` would give it.
    """
    size_hw = sample.image.shape[:2]
    small_hw = shrunk_hw(size_hw, side_px)
    if small_hw == size_hw:
        return sample
    image = cv2.resize(sample.image, small_hw[::-1], interpolation=cv2.INTER_AREA)
    boxes = _scaled(sample.boxes_xyxy_px, size_hw, small_hw)
    return replace(sample, image=image, boxes_xyxy_px=boxes)


def _scaled(
    boxes_xyxy_px: np.ndarray, from_hw: tuple[int, ...], to_hw: tuple[int, ...]
) -> np.ndarray:
    """Boxes (N, 4) by the scale of each axis, inside the new size in spite of rounding."""
    if from_hw == to_hw:
        return boxes_xyxy_px
    scale = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]] * 2, np.float32)
    return np.minimum(boxes_xyxy_px * scale, np.array([to_hw[1], to_hw[0]] * 2, np.float32))
