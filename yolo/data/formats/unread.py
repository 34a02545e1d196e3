"""Images that cannot be read when a data set opens whose format leaves their sizes to the headers.

By default the first one ends the opening. Where it may go on, they stay in the data set with a
nominal size, and whoever loads them finds them bad, names them and puts another image there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from yolo.data.images import LARGEST_IMAGE_PX
from yolo.errors import UserError

OnUnread = Callable[[UserError], None]
"""Told why an image cannot be read; it raises, or the data set goes on without its size."""

NOMINAL_SIDE_PX = 416
"""Of an image of which nothing is known."""

LARGEST_SIDE_PX = math.isqrt(LARGEST_IMAGE_PX)


def stop(error: UserError) -> None:
    """The first image that cannot be read is the end.

    Raises:
        UserError: always.
    """
    raise error


def nominal_hw(
    boxes_xyxy_px: ArrayLike = (), annotated_hw: tuple[int, int] | None = None
) -> tuple[int, int]:
    """The annotated size, or else one that holds all boxes, so that no object gets lost.

    Args:
        boxes_xyxy_px: N boxes as annotated, finite or not.
        annotated_hw: is passed over where no image is as large.
    """
    if annotated_hw is not None and math.prod(annotated_hw) <= LARGEST_IMAGE_PX:
        return annotated_hw
    corners = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)[:, 2:]
    known = corners[np.isfinite(corners).all(axis=1)].clip(0, LARGEST_SIDE_PX)
    width, height = np.ceil(known.max(axis=0, initial=NOMINAL_SIDE_PX)).astype(int).tolist()
    return height, width


class UnreadImages:
    """Goes on past the images that cannot be read, and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self._last = ""

    def note(self, error: UserError) -> None:
        """One more; an `OnUnread`."""
        self.count += 1
        self._last = str(error)

    def check(self, images: int, max_bad_share: float) -> None:
        """There are not too many.

        Args:
            images: of the data set.
            max_bad_share: above this share it is refused.

        Raises:
            UserError: they are more.
        """
        check_share(self.count, images, max_bad_share, self._last)


def check_share(bad: int, images: int, max_bad_share: float, last: object) -> None:
    """So many bad images are allowed.

    Args:
        bad: how many of the ``images`` are bad.
        max_bad_share: above this share it is refused.
        last: what was told of the last one.

    Raises:
        UserError: they are too many.
    """
    most = int(max_bad_share * images)
    if bad > most:
        raise UserError(
            f"{bad:,} of the {images:,} images cannot be read, and data.max_bad_share "
            f"{max_bad_share:g} allows {most:,}; mend them or raise data.max_bad_share. The last "
            f"one: {last}"
        )
