"""The metric of Pascal VOC: average precision of each class at one IoU.

Source: the development kit's ``VOCevaldet`` and ``VOCap`` (Everingham et al., "The Pascal Visual
Object Classes Challenge: A Retrospective", 2015, section 2.2.1). The kit counts pixels inclusively:
a box from 10 to 19 is 10 pixels wide. Truth that is read as (xmin - 1, ymin - 1, xmax, ymax) has
just that size in continuous coordinates, so the plain IoU of such boxes is the kit's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolo.evaluate.metrics.metric import MetricResult
from yolo.evaluate.metrics.precision_recall import Curve, average_precision, average_precision_11

MONITORS = ("mAP", "mAP_11", "mAP_fixed")
"""The figures: over all points, over 11 points, and over the boxes of one confidence and more."""

RIGHT, WRONG, NOT_COUNTED = 1, 0, -1


class VocMetric:
    """Scores detections as the development kit does.

    A detection belongs to the truth of its class and image that it overlaps most. The most
    confident one of a truth is right, all further ones are wrong, and those of a difficult truth
    count as nothing. Classes without a truth that has to be found have the figure -1, and the means
    are over the others.

    Args:
        image_ids: int (N,), the image of each truth.
        category_ids: int (N,), its class.
        boxes_xyxy_px: float (N, 4), in pixels of the original image.
        difficult: bool (N,), truths that need not be found.
        all_category_ids: of all classes, also those without a truth.
        iou: from which on a box is taken for a truth's.
        fixed_conf: confidence of the figure ``mAP_fixed``.
    """

    def __init__(
        self,
        *,
        image_ids: np.ndarray,
        category_ids: np.ndarray,
        boxes_xyxy_px: np.ndarray,
        difficult: np.ndarray,
        all_category_ids: tuple[int, ...],
        iou: float = 0.5,
        fixed_conf: float = 0.4,
    ) -> None:
        self._iou, self._fixed_conf = iou, fixed_conf
        self._truth_of = {
            category: _Truth.of_class(
                np.asarray(category_ids) == category, image_ids, boxes_xyxy_px, difficult
            )
            for category in all_category_ids
        }

    def evaluate(
        self,
        image_ids: np.ndarray,
        category_ids: np.ndarray,
        boxes_xyxy_px: np.ndarray,
        scores: np.ndarray,
    ) -> MetricResult:
        """See ``Metric``; a box that is not finite matches nothing, such a score counts as 0."""
        curves = self.curves(image_ids, category_ids, boxes_xyxy_px, scores)
        per_class = {
            category: {
                "AP": average_precision(curve),
                "AP_11": average_precision_11(curve),
                "AP_fixed": average_precision(curve.above(self._fixed_conf)),
            }
            for category, curve in curves.items()
        }
        names = zip(MONITORS, ("AP", "AP_11", "AP_fixed"), strict=True)
        stats = {figure: _mean([c[name] for c in per_class.values()]) for figure, name in names}
        return MetricResult(stats=stats, table=self._table(stats), per_class=per_class)

    def curves(
        self,
        image_ids: np.ndarray,
        category_ids: np.ndarray,
        boxes_xyxy_px: np.ndarray,
        scores: np.ndarray,
    ) -> dict[int, Curve]:
        """Precision over recall by category id; arguments as in ``evaluate``.

        Detections of equal scores keep their order.
        """
        scores = np.nan_to_num(np.asarray(scores, np.float64), nan=0.0, posinf=0, neginf=0)
        order = np.argsort(-scores, kind="stable")
        scores, boxes = scores[order], np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)[order]
        image_ids, category_ids = np.asarray(image_ids)[order], np.asarray(category_ids)[order]
        curves = {}
        for category, truth in self._truth_of.items():
            mine = np.flatnonzero(category_ids == category)
            verdict = truth.judge(image_ids[mine], boxes[mine], self._iou)
            counted = verdict != NOT_COUNTED
            hits = verdict[counted] == RIGHT
            curves[category] = Curve.of_hits(hits, scores[mine][counted], truth.to_find)
        return curves

    def _table(self, stats: dict[str, float]) -> str:
        how = ("all points", "11 points", f"confidence {self._fixed_conf:g}")
        return "\n".join(
            f" Mean Average Precision  ({name:<9}) @[ IoU={self._iou:.2f} | {text:<15} ] "
            f"= {stats[name]:0.3f}"
            for name, text in zip(MONITORS, how, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Truth:
    """The truths of one class, sorted by image.

    Attributes:
        image_ids: int (N,), ascending.
        boxes: float64 (N, 4), xyxy.
        difficult: bool (N,).
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    difficult: np.ndarray

    @classmethod
    def of_class(
        cls,
        mine: np.ndarray,
        image_ids: np.ndarray,
        boxes_xyxy_px: np.ndarray,
        difficult: np.ndarray,
    ) -> _Truth:
        ids = np.asarray(image_ids)[mine]
        by_image = np.argsort(ids, kind="stable")
        boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)[mine]
        return cls(ids[by_image], boxes[by_image], np.asarray(difficult, bool)[mine][by_image])

    @property
    def to_find(self) -> int:
        return int((~self.difficult).sum())

    def judge(self, image_ids: np.ndarray, boxes: np.ndarray, iou: float) -> np.ndarray:
        """What each detection is, from the most confident on.

        Args:
            image_ids, boxes: of D detections, sorted by falling confidence.
            iou: see ``VocMetric``.

        Returns:
            int (D,): RIGHT, WRONG or NOT_COUNTED.
        """
        best, overlap = self._best_truth(image_ids, boxes)
        verdict = np.full(len(boxes), WRONG)
        matched = np.flatnonzero(overlap >= iou)
        _, first = np.unique(best[matched], return_index=True)  # the most confident of each truth
        verdict[matched[first]] = RIGHT
        verdict[matched[self.difficult[best[matched]]]] = NOT_COUNTED
        return verdict

    def _best_truth(
        self, image_ids: np.ndarray, boxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The truth that each detection overlaps most (of equals the first), and by how much."""
        start = np.searchsorted(self.image_ids, image_ids, side="left")
        counts = np.searchsorted(self.image_ids, image_ids, side="right") - start
        detection = np.repeat(np.arange(len(boxes)), counts)  # (P,) pairs within an image
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        truth = np.repeat(start, counts) + place
        overlap = _iou(boxes[detection], self.boxes[truth])
        order = np.lexsort((truth, -overlap, detection))
        chosen, first = np.unique(detection[order], return_index=True)
        best = np.zeros(len(boxes), np.int64)
        highest = np.full(len(boxes), -np.inf)
        best[chosen], highest[chosen] = truth[order][first], overlap[order][first]
        return best, highest


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of pairs (P, 4), (P, 4) -> (P,); -1 where they share no area or are not finite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
        intersection = (high - low).clip(0).prod(axis=1)
        areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (a, b)]
        overlap = intersection / (areas[0] + areas[1] - intersection)
    return np.where(overlap > 0, overlap, -1.0)


def _mean(values: list[float]) -> float:
    """Over the classes that have a truth."""
    real = [value for value in values if value >= 0]
    return float(np.mean(real)) if real else -1.0
