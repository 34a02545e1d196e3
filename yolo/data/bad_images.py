"""Images that cannot be read: when a data set opens, and when one of them is loaded.

A format that takes its sizes from the images' headers stops at the first bad one, unless it may go
on: then the image stays with a nominal size, and whoever loads it finds it bad. In training the
next readable image takes its place, which depends on the place alone, not on workers, ranks and
orders. In evaluation every image counts: an empty one takes the place, and its objects are missed.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from yolo.data.images import LARGEST_IMAGE_PX
from yolo.errors import UserError
from yolo.records import Sample

if TYPE_CHECKING:
    from yolo.data.formats.detection import DetectionDataset
    from yolo.data.loader import ImageData

BAD = (UserError, OSError)
"""What a broken file raises, and what the disk, the network or a lost permission does."""

OnBadImage = Callable[[UserError], Any]
"""Is given the reason why an image cannot be read; it raises, or the data set goes on."""

_log = logging.getLogger(__name__)


def stop(error: UserError) -> None:
    """An `OnBadImage` that goes on past none."""
    raise error


def nominal_hw(
    boxes_xyxy_px: ArrayLike = (), annotated_hw: tuple[int, int] | None = None
) -> tuple[int, int]:
    """The annotated size, if images can be as large, or one that holds all finite boxes (N, 4).

    It is 416 px square, or larger where the boxes are.
    """
    if annotated_hw is not None and math.prod(annotated_hw) <= LARGEST_IMAGE_PX:
        return annotated_hw
    corners = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)[:, 2:]
    known = corners[np.isfinite(corners).all(axis=1)].clip(0, math.isqrt(LARGEST_IMAGE_PX))
    width, height = np.ceil(known.max(axis=0, initial=416)).astype(int).tolist()
    return height, width


def check_bad_share(
    bad: int, images: int, max_bad_share: float, last: object, key: str = "max_bad_share"
) -> int:
    """How many may be bad; a UserError, which ends with the ``last`` reason, if more are."""
    allowed = int(round(max_bad_share * images, 6))  # 0.29 * 100 is 28.999999999999996
    if bad > allowed:
        raise UserError(
            f"{bad:,} of the {images:,} images cannot be read, and {key} {max_bad_share:g} allows "
            f"{allowed:,}; repair them or raise {key}. The last one: {last}"
        )
    return allowed


class _CountedBadImages:
    """Images of which each bad one is named once by all workers of a rank, who share a byte for it.

    Above ``max_bad_share`` of them loading fails; ``key`` names that setting in the message.
    """

    _substitute: str

    def __init__(
        self, images: ImageData, *, max_bad_share: float, key: str = "max_bad_share"
    ) -> None:
        self._images, self._max_bad_share, self._key = images, max_bad_share, key
        self._bad = multiprocessing.RawArray("b", len(images))

    def __len__(self) -> int:
        return len(self._images)

    def _read(self, index: int) -> Sample | None:
        """The image; None if it is bad, which is logged once. A UserError if too many are."""
        if self._bad[index]:
            return None
        try:
            return self._images.load(index)
        except BAD as error:
            known, self._bad[index] = self._bad[index], 1  # another worker may have met it
            bad = bytes(self._bad).count(1)
            allowed = check_bad_share(bad, len(self), self._max_bad_share, error, self._key)
            if not known:
                reason, counts = str(error).rstrip("."), f"{bad:,} of at most {allowed:,}"
                message = "%s; %s takes its place (bad image %s)"
                _log.warning(message, reason, self._substitute, counts)
            return None


class TolerantImages(_CountedBadImages):
    """Images for training: where one cannot be read, the next readable one takes its place.

    After the last image comes the first. The substitute brings its own truth and id.
    """

    _substitute = "the next readable image"

    def load(self, index: int) -> Sample:
        """The image, or the next one that can be read; a UserError if too many are bad, or all."""
        for place in chain(range(index, len(self)), range(index)):
            if (sample := self._read(place)) is not None:
                return sample
        raise UserError(f"none of the {len(self):,} images of the data set can be read.")


class ImagesOrEmpty(_CountedBadImages):
    """Images for evaluation: where one cannot be read, an empty one takes its place."""

    _substitute = "an empty image"
    _images: DetectionDataset

    def load(self, index: int) -> Sample:
        """The image, or an empty one with its truth; a UserError if too many images are bad."""
        sample = self._read(index)
        return self._images.empty(index) if sample is None else sample
