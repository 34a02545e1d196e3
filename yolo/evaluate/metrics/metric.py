"""What every detection metric takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class MetricResult:
    """What one evaluation found.

    A figure is -1 where there is no ground truth to find, and 0 where there is some and no
    detection.

    Attributes:
        stats: figures by name.
        table: the same for people, without a newline at the end.
        per_class: figures by name of every category id of the ground truth.
    """

    stats: dict[str, float]
    table: str
    per_class: dict[int, dict[str, float]]


class Metric(Protocol):
    """Scores detections against a ground truth that stays the same between evaluations."""

    def evaluate(
        self,
        image_ids: np.ndarray,
        category_ids: np.ndarray,
        boxes_xyxy_px: np.ndarray,
        scores: np.ndarray,
    ) -> MetricResult:
        """Score the detections of all images at once.

        Args:
            image_ids: int (D,), ids of the ground truth's images.
            category_ids: int (D,), ids as in the ground truth, not contiguous labels.
            boxes_xyxy_px: float (D, 4), in pixels of the original image.
            scores: float (D,).
        """
        ...
