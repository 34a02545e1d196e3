"""What the page shows of a picture; knows no web page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from yolo.apps.demo.pictures import shrink
from yolo.apps.report.drawing import draw_boxes
from yolo.errors import UserError
from yolo.records import Detections

TABLE_COLUMNS = ("class", "score", "left", "top", "width", "height")
"""Boxes are in pixels of the uploaded picture."""

Row = tuple[str, float, int, int, int, int]


class Finder(Protocol):
    """The part of `yolo.apps.predict.Predictor` that is needed here."""

    @property
    def class_names(self) -> Sequence[str]:
        """By label."""

    def __call__(self, images: Any, *, conf: float, iou: float) -> Sequence[Any]:
        """A prediction for each image."""


Overlay = tuple[np.ndarray, str]
"""A picture uint8 (H, W, 3), RGB, and its caption."""

Explain = Callable[[np.ndarray], Sequence[Overlay]]
"""Image uint8 (H, W, 3), RGB -> one overlay for each scale."""


class Views:
    """The views of a detector.

    Args:
        finder: finds objects.
        explain: draws what it looks at.
    """

    def __init__(self, finder: Finder, explain: Explain) -> None:
        self._finder = finder
        self._explain = explain

    @property
    def class_names(self) -> list[str]:
        """What can be found."""
        return list(self._finder.class_names)

    def boxes(self, image: np.ndarray, conf: float, iou: float) -> tuple[np.ndarray, list[Row]]:
        """Find objects.

        Args:
            image: uint8 (H, W, 3), RGB.
            conf: lowest score that is shown, 0..1.
            iou: overlap from which on the lower of two boxes is dropped, 0..1.

        Returns:
            The picture with boxes and names, at most 1,600 px long; and the table's rows, the best
            score first.

        Raises:
            UserError: a threshold is out of range.
        """
        conf, iou = _share("confidence", conf), _share("IoU", iou)
        detections: Detections = self._finder([image], conf=conf, iou=iou)[0].detections
        boxes_xyxy_px = detections.boxes_xyxy_px.detach().cpu().numpy()
        labels, scores = detections.labels.cpu().numpy(), detections.scores.detach().cpu().numpy()
        shown = shrink(image)
        scale_wh = np.divide(shown.shape[1::-1], image.shape[1::-1])
        names = self.class_names
        drawn = draw_boxes(
            shown, boxes_xyxy_px * np.tile(scale_wh, 2), labels, names, scores=scores
        )
        rows = [
            _row(names[label], score, box)
            for label, score, box in zip(labels, scores, boxes_xyxy_px, strict=True)
        ]
        return drawn, rows

    def maps(self, image: np.ndarray) -> list[Overlay]:
        """What the network looks at, for each scale, on the picture shown at most 1,600 px long.

        Raises:
            UserError: the model cannot be explained, as an exported one.
        """
        return list(self._explain(shrink(image)))


def _share(name: str, value: object) -> float:
    """A number that a browser sent."""
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise UserError(f"{name}: must be a number from 0 to 1.")
    return float(value)


def _row(name: str, score: float, box_xyxy_px: np.ndarray) -> Row:
    left, top, right, bottom = box_xyxy_px.tolist()
    sizes = round(left), round(top), round(right - left), round(bottom - top)
    return (name, round(float(score), 3), *sizes)
