"""The COCO metric for boxes, by hotcoco or by pycocotools: the same numbers to the last bit.

What it measures is defined at https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo.evaluate.metrics.metric import MetricResult

MONITORS = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "AR1",
    "AR10",
    "AR100",
    "ARs",
    "ARm",
    "ARl",
)
"""The 12 figures in the order of the table: any of them can be the one that a run monitors."""

_IOU_050 = 0  # index of the threshold 0.50 among 0.50, 0.55, .. 0.95
_AREA_ALL = 0  # index of the size range "all"
_AT_MOST_100 = 2  # index of 100 among the limits 1, 10, 100 of detections per image and class


class CocoMetric:
    """Scores detections against a ground truth that stays the same between evaluations.

    Args:
        ground_truth: a COCO json as a dict, with ``images`` (all that were looked at, also those
            without boxes), ``annotations`` and ``categories``. It is not changed. ``area`` is
            taken from the box and ``iscrowd`` as 0 where they are missing. Annotations are
            numbered anew, because pycocotools counts one whose id is 0 as never found.
        backend: ``hotcoco`` (fast) or ``pycocotools`` (the reference).
    """

    def __init__(self, *, ground_truth: Mapping[str, Any], backend: str = "hotcoco") -> None:
        if backend not in _BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(_BACKENDS)}")
        truth = _box_truth(ground_truth)
        self._image_ids = np.array([image["id"] for image in truth["images"]], dtype=np.int64)
        self._category_ids = np.array(
            sorted(category["id"] for category in truth["categories"]), dtype=np.int64
        )
        self._score = _BACKENDS[backend](truth)

    def evaluate(
        self,
        image_ids: np.ndarray,
        category_ids: np.ndarray,
        boxes_xyxy_px: np.ndarray,
        scores: np.ndarray,
    ) -> MetricResult:
        """Score the detections of all images at once.

        Detections of categories that the ground truth does not define are left out, as COCO's
        definition has it. A box that is not finite is taken as an empty one at the origin, which
        matches nothing, and such a score as 0.

        Args:
            image_ids: int (D,), ids of the ground truth's images.
            category_ids: int (D,), ids as in the ground truth, not contiguous labels.
            boxes_xyxy_px: float (D, 4), in pixels of the original image.
            scores: float (D,).
        """
        rows = _rows(image_ids, category_ids, boxes_xyxy_px, scores)
        assert np.isin(rows[:, 0], self._image_ids).all(), "detections on images without truth"
        rows = np.ascontiguousarray(rows[np.isin(rows[:, 6], self._category_ids)])
        figures, precision = self._score(rows)
        stats = dict(zip(MONITORS, map(float, figures), strict=True))
        return MetricResult(
            stats=stats,
            table=_table(stats),
            per_class=_per_class(precision, self._category_ids.tolist()),
        )


class _Hotcoco:
    """hotcoco, a port of pycocotools to Rust."""

    def __init__(self, truth: dict[str, Any]) -> None:
        self._truth = hotcoco.COCO(truth)

    def __call__(self, rows: np.ndarray) -> tuple[Sequence[float], np.ndarray]:
        run = hotcoco.COCOeval(self._truth, self._truth.load_res(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summary_lines()  # fills the results, as summarize() does, but does not print
        results = run.get_results()
        assert run.eval is not None
        return [results[key] for key in MONITORS], run.eval["precision"]


class _Pycocotools:
    """pycocotools, silenced: it reports each of its steps on stdout."""

    def __init__(self, truth: dict[str, Any]) -> None:
        self._truth = _silent_coco(truth)

    def __call__(self, rows: np.ndarray) -> tuple[Sequence[float], np.ndarray]:
        with contextlib.redirect_stdout(io.StringIO()):
            run = COCOeval(self._truth, self._found(rows), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return run.stats, run.eval["precision"]

    def _found(self, rows: np.ndarray) -> COCO:
        if len(rows):
            return self._truth.loadRes(rows)
        return _silent_coco({**self._truth.dataset, "annotations": []})  # loadRes cannot be empty


_BACKENDS: dict[str, type[_Hotcoco] | type[_Pycocotools]] = {
    "hotcoco": _Hotcoco,
    "pycocotools": _Pycocotools,
}


def _silent_coco(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _box_truth(ground_truth: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with what the box metric needs and no more: outlines would cost time and memory."""
    annotations = []
    for number, annotation in enumerate(ground_truth["annotations"], start=1):
        bbox = [float(value) for value in annotation["bbox"]]
        annotations.append(
            {
                "id": number,
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": bbox,
                "area": float(annotation.get("area", bbox[2] * bbox[3])),
                "iscrowd": int(annotation.get("iscrowd", 0)),
            }
        )
    sizes = ("id", "width", "height")
    return {
        "info": {},
        "images": [{k: image[k] for k in sizes if k in image} for image in ground_truth["images"]],
        "annotations": annotations,
        "categories": [
            {"id": category["id"], "name": str(category.get("name", category["id"]))}
            for category in ground_truth["categories"]
        ],
    }


def _rows(
    image_ids: np.ndarray, category_ids: np.ndarray, boxes_xyxy_px: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """Pack into float64 (D, 7): image id, x, y, width, height, score, category id."""
    rows = np.empty((len(scores), 7), dtype=np.float64)
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(len(scores), 4)  # (D, 4)
    rows[:, 0] = image_ids
    rows[:, 1:3] = boxes[:, :2]
    rows[:, 3:5] = boxes[:, 2:] - boxes[:, :2]
    rows[:, 5] = scores
    rows[:, 6] = category_ids
    rows[~np.isfinite(rows[:, 1:5]).all(axis=1), 1:5] = 0
    rows[~np.isfinite(rows[:, 5]), 5] = 0
    return rows


def _table(stats: Mapping[str, float]) -> str:
    """The lines of pycocotools; hotcoco's own have a space less between name and bracket."""
    lines = []
    for key, value in stats.items():
        name = "Average Precision" if key.startswith("AP") else "Average Recall"
        iou = {"AP50": "0.50", "AP75": "0.75"}.get(key, "0.50:0.95")
        area = {"s": "small", "m": "medium", "l": "large"}.get(key[-1], "all")
        limit = {"AR1": 1, "AR10": 10}.get(key, 100)
        head = f" {name:<18} ({key[:2]}) @[ IoU={iou:<9} | area={area:>6s} | maxDets={limit:>3d} ]"
        lines.append(f"{head} = {value:0.3f}")
    return "\n".join(lines)


def _per_class(precision: np.ndarray, category_ids: list[int]) -> dict[int, dict[str, float]]:
    """AP of each class from the precision array.

    Args:
        precision: (T, R, K, A, M): IoU thresholds, recalls, sorted categories, size ranges,
            limits of detections per image; -1 where a class has no ground truth.
    """
    if precision.size == 0:
        return {}
    curves = precision[:, :, :, _AREA_ALL, _AT_MOST_100]  # (T, R, K)
    return {
        category_id: {
            "AP": float(curves[:, :, k].mean()),
            "AP50": float(curves[_IOU_050, :, k].mean()),
        }
        for k, category_id in enumerate(category_ids)
    }
