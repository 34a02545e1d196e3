"""The metric of Pascal VOC: average precision of each class at one IoU.

Source: the development kit's ``VOCevaldet`` and ``VOCap`` (Everingham et al., "The Pascal Visual
Object Classes Challenge: A Retrospective", 2015, section 2.2.1). The kit counts pixels inclusively:
a box from 10 to 19 is 10 pixels wide. Truth that is read as (xmin - 1, ymin - 1, xmax, ymax) has
just that size in continuous coordinates, so the plain IoU of such boxes is the kit's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolo.data.formats.detection import DetectionDataset
from yolo.evaluate.metrics.metric import (
    NOT_COUNTED,
    RIGHT,
    WRONG,
    DetectedBoxes,
    MetricResult,
    PrecisionRecall,
    average_precision,
    average_precision_11,
)

MONITORS = ("mAP", "mAP_11", "mAP_fixed")
"""The figures: over all points, over 11 points, and over the boxes of one confidence and more."""


class VocMetric:
    """Scores detections as the development kit does.

    A detection belongs to the truth of its class and image that it overlaps most. The most
    confident one of a truth is right, all further ones are wrong, and those of a difficult truth
    count as nothing. Classes without a truth that has to be found have the figure -1, and the means
    are over the others.
    """

    def __init__(
        self,
        *,
        image_ids: np.ndarray,  # int (N,), of each truth
        category_ids: np.ndarray,  # int (N,)
        boxes_xyxy_px: np.ndarray,  # float (N, 4), in pixels of the original image
        difficult: np.ndarray,  # bool (N,), truths that need not be found
        all_category_ids: tuple[int, ...],  # also of classes without a truth
        iou: float = 0.5,  # from which on a box is taken for a truth's
        fixed_conf: float = 0.4,  # of the figure ``mAP_fixed``
    ) -> None:
        self._iou, self._fixed_conf = iou, fixed_conf
        order = np.argsort(image_ids, kind="stable")
        boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)[order]
        image_ids, category_ids, difficult = image_ids[order], category_ids[order], difficult[order]
        self._truth_of = {
            category: _ClassTruth(image_ids[mine], boxes[mine], difficult[mine])
            for category in all_category_ids
            for mine in [category_ids == category]
        }

    @classmethod
    def of_dataset(
        cls, dataset: DetectionDataset, *, iou: float = 0.5, fixed_conf: float = 0.4
    ) -> VocMetric:
        """Of a data set, whose labels are the category ids; what it ignores is difficult."""
        packed = dataset.annotations
        return cls(
            image_ids=packed.image_ids[packed.image_index()],
            category_ids=packed.labels,
            boxes_xyxy_px=packed.boxes_xyxy_px,
            difficult=packed.ignored,
            all_category_ids=tuple(range(len(dataset.class_names))),
            iou=iou,
            fixed_conf=fixed_conf,
        )

    def evaluate(self, found: DetectedBoxes) -> MetricResult:
        """A box that is not finite matches nothing, such a score counts as 0."""
        per_class = {
            category: {
                "AP": average_precision(curve),
                "AP_11": average_precision_11(curve),
                "AP_fixed": average_precision(curve.above(self._fixed_conf)),
            }
            for category, curve in self.curves(found).items()
        }
        known = [figures for figures in per_class.values() if figures["AP"] >= 0]
        stats = {
            name: float(np.mean([figures[name.removeprefix("m")] for figures in known] or -1.0))
            for name in MONITORS
        }
        points = ("all points", "11 points", f"confidence {self._fixed_conf:g}")
        table = "\n".join(
            f" Mean Average Precision  ({name:<9}) @[ IoU={self._iou:.2f} | {text:<15} ] "
            f"= {value:0.3f}"
            for (name, value), text in zip(stats.items(), points, strict=True)
        )
        return MetricResult(stats=stats, table=table, per_class=per_class)

    def curves(self, found: DetectedBoxes) -> dict[int, PrecisionRecall]:
        """Precision over recall by category id; detections of equal scores keep their order."""
        scores = np.nan_to_num(np.asarray(found.scores, np.float64), nan=0.0, posinf=0, neginf=0)
        order = np.argsort(-scores, kind="stable")
        boxes = np.asarray(found.boxes_xyxy_px, np.float64).reshape(-1, 4)[order]
        scores, image_ids = scores[order], found.image_ids[order]
        category_ids = found.category_ids[order]
        curves = {}
        for category, truth in self._truth_of.items():
            mine = np.flatnonzero(category_ids == category)
            verdict = truth.judge(image_ids[mine], boxes[mine], self._iou)
            counted = verdict != NOT_COUNTED
            curves[category] = PrecisionRecall.of_hits(
                verdict[counted] == RIGHT, scores[mine][counted], int((~truth.difficult).sum())
            )
        return curves


@dataclass(frozen=True, slots=True)
class _ClassTruth:
    """The truths of one class, sorted by image."""

    image_ids: np.ndarray  # int (N,), ascending
    boxes: np.ndarray  # float64 (N, 4), xyxy
    difficult: np.ndarray  # bool (N,)

    def judge(self, image_ids: np.ndarray, boxes: np.ndarray, iou: float) -> np.ndarray:
        """RIGHT, WRONG or NOT_COUNTED for D detections, from the most confident on: int (D,)."""
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
        best, highest = np.zeros(len(boxes), np.int64), np.full(len(boxes), -np.inf)
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
