"""Data sets with images that cannot be read: each is named once, counted, and stood in for.

In training the next readable image of the data set takes the place, so that a batch is never short;
which one is a function of the place alone, the same for all workers, ranks and orders. In
evaluation every image counts: an empty one takes the place, and its objects are missed.
"""

from __future__ import annotations

import logging
import multiprocessing
from itertools import chain
from typing import Protocol

from yolo.data.formats.unread import check_share
from yolo.data.loader import ImageData
from yolo.errors import UserError
from yolo.records import Sample

BAD = (UserError, OSError)
"""What a broken file raises, and what the disk, the network or a lost permission does."""

_log = logging.getLogger(__name__)


class ImageDataWithEmpty(ImageData, Protocol):
    """Images of which each can be replaced by an empty one."""

    def empty(self, index: int) -> Sample:
        """An image with nothing to see, with the truth of the one at ``index``."""
        ...


class TolerantImages:
    """Images for training: where one cannot be read, the next readable one takes its place.

    After the last image comes the first. The substitute brings its own truth and id.

    Args:
        images: whatever loads them.
        max_bad_share: above this share of bad images loading fails.
    """

    def __init__(self, images: ImageData, *, max_bad_share: float) -> None:
        self._images = images
        self._bad = _BadImages(len(images), max_bad_share, "the next readable image")

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> Sample:
        """The image, or the next one that can be read.

        Raises:
            UserError: too many images are bad, or all.
        """
        for place in chain(range(index, len(self)), range(index)):
            if place in self._bad:
                continue
            try:
                return self._images.load(place)
            except BAD as error:
                self._bad.note(place, error)
        raise UserError(f"none of the {len(self):,} images of the data set can be read.")


class ImagesOrEmpty:
    """Images for evaluation: where one cannot be read, an empty one takes its place.

    Args:
        images: whatever loads them.
        max_bad_share: above this share of bad images loading fails.
    """

    def __init__(self, images: ImageDataWithEmpty, *, max_bad_share: float) -> None:
        self._images = images
        self._bad = _BadImages(len(images), max_bad_share, "an empty image")

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> Sample:
        """The image, or an empty one with its truth.

        Raises:
            UserError: too many images are bad.
        """
        if index not in self._bad:
            try:
                return self._images.load(index)
            except BAD as error:
                self._bad.note(index, error)
        return self._images.empty(index)


class _BadImages:
    """Which images were found bad, by any worker of this process.

    The workers share one byte for each image: made before they start, it is known to those of all
    epochs and evaluations. Ranks do not share it: each names and counts the images that it meets.

    Args:
        images: their number.
        max_share: more of them may not be bad.
        substitute: what takes their place, in words.
    """

    def __init__(self, images: int, max_share: float, substitute: str) -> None:
        self._flags = multiprocessing.RawArray("b", images)
        self._most = int(max_share * images)
        self._max_share = max_share
        self._substitute = substitute

    def __contains__(self, index: int) -> bool:
        return bool(self._flags[index])

    def note(self, index: int, error: Exception) -> None:
        """Name an image, unless another worker has done so in the meantime.

        Raises:
            UserError: it is one too many.
        """
        known, self._flags[index] = self._flags[index], 1
        count = bytes(self._flags).count(1)
        check_share(count, len(self._flags), self._max_share, error)
        if not known:
            told = str(error).rstrip(".")
            _log.warning(
                "%s; %s takes its place (bad image %s of at most %s)",
                told,
                self._substitute,
                f"{count:,}",
                f"{self._most:,}",
            )
