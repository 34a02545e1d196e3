"""How boxes fit their images, and which reading of their four numbers would keep them inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

KEPT_SHARE = 0.9  # a box of which less of the area lies inside its image leaves it
SUSPECT_SHARE = 0.05
"""Of boxes that leave their image, from which on another reading is tried. None does in COCO."""

FEWER_OUTSIDE = 4
"""The other reading must have so many times fewer of them. Where boxes are right, every wrong
reading sends a quarter of them out; where a reading is the right one, it sends out almost none."""

HOPELESS_SHARE = 0.2
"""So many boxes outside spoil a training even where no other reading explains them."""

FEWEST_OUTSIDE = 3
"""Fewer boxes, a minority of all, prove nothing: a small data set may have one careless box."""

SMALLEST_PX = 2.0  # no object is smaller on its longer side
TINY_SHARE = 0.5  # of boxes below ``SMALLEST_PX``, from which on they cannot be in pixels


def _edges(boxes: np.ndarray) -> np.ndarray:
    """[x, y, w, h] -> xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


OTHER_READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "[y, x, height, width]": lambda boxes: _edges(boxes[:, [1, 0, 3, 2]]),
    "the corners [x1, y1, x2, y2]": lambda boxes: boxes,
    "the corners [y1, x1, y2, x2]": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "[centre x, centre y, width, height]": lambda boxes: _edges(
        np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
    ),
}
"""Of four numbers that should be [x, y, width, height] -> (N, 4) xyxy."""


@dataclass(frozen=True, kw_only=True)
class BoxStatistics:
    """How boxes fit their images."""

    outside: float  # share of the boxes that leave their image
    tiny: float  # share of the boxes below ``SMALLEST_PX``
    few: bool = False  # those that leave are too few to prove anything
    better: str | None = None  # another reading that keeps (nearly) all inside
    better_outside: float = 0.0  # the share that leaves in that one

    def fault(self) -> str | None:
        """What is wrong with the boxes, without a full stop."""
        if self.tiny > TINY_SHARE:
            return (
                f"{self.tiny:.0%} of its boxes are smaller than {SMALLEST_PX:g} px on both sides, "
                "so their unit is not the pixel (relative to the image, 0 to 1?); write them in "
                "pixels"
            )
        if self.better is not None:
            return (
                f"{self.outside:.0%} of its boxes leave their images, but only "
                f"{self.better_outside:.0%} if their numbers are read as {self.better}; write "
                "them as [x, y, width, height]"
            )
        if self.outside > HOPELESS_SHARE and not self.few:
            return (
                f"{self.outside:.0%} of its boxes leave their images, whatever their order; their "
                "unit is not the images' pixel, or they belong to other images"
            )
        return None


def measure_boxes(boxes_xywh_px: np.ndarray, sizes_wh: np.ndarray) -> BoxStatistics:
    """Measure boxes as they were annotated.

    Args:
        boxes_xywh_px: float (N, 4), N >= 1, finite.
        sizes_wh: (N, 2) of their images, in pixels.
    """
    leaving = _leave(_edges(boxes_xywh_px), sizes_wh)
    outside = float(leaving.mean())
    tiny = float((boxes_xywh_px[:, 2:].max(axis=1) < SMALLEST_PX).mean())
    few = bool(leaving.sum() < FEWEST_OUTSIDE and outside < 0.5)
    if outside <= SUSPECT_SHARE or few:
        return BoxStatistics(outside=outside, tiny=tiny, few=few)
    shares = {
        name: float(_leave(read(boxes_xywh_px), sizes_wh).mean())
        for name, read in OTHER_READINGS.items()
    }
    best = min(shares, key=lambda name: shares[name])
    if shares[best] * FEWER_OUTSIDE > outside:
        return BoxStatistics(outside=outside, tiny=tiny)
    return BoxStatistics(outside=outside, tiny=tiny, better=best, better_outside=shares[best])


def _leave(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
    """Which boxes (N, 4) have too little of their area inside the image, or none: bool (N,)."""
    inside = boxes_xyxy.clip(0, np.tile(sizes_wh, 2))
    return _area(inside) <= KEPT_SHARE * _area(boxes_xyxy)


def _area(boxes_xyxy: np.ndarray) -> np.ndarray:
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clip(min=0).prod(axis=1)
