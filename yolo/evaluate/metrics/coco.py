"""The COCO metric for boxes, by hotcoco or by pycocotools: the same numbers to the last bit.

What it measures is defined at https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo.evaluate.metrics.metric import DetectedBoxes, MetricResult

CLASS_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
MONITORS = (*CLASS_FIGURES, "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The 12 figures in the order of the table: any of them can be the one that a run monitors."""

SCORE, CATEGORY = 5, 6
"""Columns of the rows of `BoxTruth`."""

_IOU = {"AP50": 0, "AP75": 5}  # places among the IoU thresholds 0.50, 0.55, .. 0.95
_AREA = {"APs": 1, "APm": 2, "APl": 3}  # places among the size ranges, 0 for all
_AT_MOST_100 = 2  # index of 100 among the limits 1, 10, 100 of detections per image and class

Score = Callable[[np.ndarray], tuple[Sequence[float], np.ndarray]]
"""Rows of detections -> the 12 figures, and precision as ``class_precision`` takes it."""


class CocoMetric:
    """Scores detections against a ground truth that stays the same between evaluations.

    That is a COCO json as a dict, whose ``images`` are all that were looked at, also those without
    boxes. The backend is ``hotcoco`` (fast) or ``pycocotools`` (the reference).
    """

    def __init__(self, *, ground_truth: Mapping[str, Any], backend: str = "hotcoco") -> None:
        if backend not in _BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(_BACKENDS)}")
        self._truth = BoxTruth(ground_truth)
        self._score = _BACKENDS[backend](self._truth.content)

    def evaluate(self, found: DetectedBoxes) -> MetricResult:
        """Score the detections of all images at once.

        Those of categories that the ground truth does not define are left out, as COCO has it. A
        box that is not finite is an empty one at the origin, matching nothing; such a score is 0.
        """
        rows = self._truth.rows(found)
        figures, precision = self._score(np.ascontiguousarray(rows[rows[:, CATEGORY] > 0]))
        stats = dict(zip(MONITORS, map(float, figures), strict=True))
        return MetricResult(
            stats=stats,
            table=_table(stats),
            per_class={
                category: {name: class_precision(precision, k, name) for name in ("AP", "AP50")}
                for k, category in enumerate(
                    self._truth.known_categories.tolist() if precision.size else ()
                )
            },
        )


class BoxTruth:
    """A copy of a COCO json with what the box metric needs; outlines would cost time and memory.

    ``area`` is taken from the box and ``iscrowd`` as 0 where they are missing. Images and
    categories are numbered from 1 in the order of their ids, whatever these are: hotcoco takes none
    below 0. So are annotations, because pycocotools counts one whose id is 0 as never found.
    Categories are called by their numbers: two of one name would be one class for hotcoco. The ids
    of the json are whole numbers of 64 bits.

    The attributes but the known ids, which ascend, are of the N annotations, with the json's ids:
    ``boxes_xyxy_px`` (N, 4), ``areas_px2`` by which they are small or large, ``ignored`` crowds.
    """

    def __init__(self, ground_truth: Mapping[str, Any]) -> None:
        self.known_images, self.known_categories = (
            np.array(sorted(entry["id"] for entry in ground_truth[key]), np.int64)
            for key in ("images", "categories")
        )
        images, entries = ground_truth["images"], ground_truth["annotations"]
        image_numbers = _numbers(self.known_images, np.array([entry["id"] for entry in images]))
        xywh = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
        areas = [entry.get("area", entry["bbox"][2] * entry["bbox"][3]) for entry in entries]
        self.image_ids = np.array([entry["image_id"] for entry in entries], np.int64)
        self.category_ids = np.array([entry["category_id"] for entry in entries], np.int64)
        self.boxes_xyxy_px = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        self.areas_px2 = np.array(areas, np.float64)
        self.ignored = np.array([entry.get("iscrowd", 0) for entry in entries], bool)
        columns = {
            "image_id": _numbers(self.known_images, self.image_ids),
            "category_id": _numbers(self.known_categories, self.category_ids),
            "bbox": xywh,
            "area": self.areas_px2,
            "iscrowd": self.ignored.astype(int),
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        sizes = ("width", "height")
        self.content: dict[str, Any] = {
            "info": {},
            "images": [
                {"id": number, **{k: entry[k] for k in sizes if k in entry}}
                for number, entry in zip(image_numbers.tolist(), images, strict=True)
            ],
            "annotations": [
                {"id": number, **dict(zip(columns, row, strict=True))}
                for number, row in enumerate(rows, start=1)
            ],
            "categories": [
                {"id": k, "name": str(k)} for k in range(1, len(self.known_categories) + 1)
            ],
        }

    def rows(self, found: DetectedBoxes) -> np.ndarray:
        """float64 (D, 7): image, x, y, width, height, score, category; 0 where not finite.

        Images and categories are the numbers here, a category 0 where the truth has none such.
        """
        boxes = np.asarray(found.boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)  # (D, 4)
        corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        images = _numbers(self.known_images, found.image_ids)
        assert images.all(), "detections on images without truth"
        categories = _numbers(self.known_categories, found.category_ids)
        rows = np.column_stack((images, corner, size, found.scores, categories)).astype(np.float64)
        rows[~np.isfinite(rows[:, 1:5]).all(axis=1), 1:5] = 0
        rows[~np.isfinite(rows[:, SCORE]), SCORE] = 0
        return rows


def _numbers(known: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The places from 1 of ids (D,) among the known ones, ascending; 0 of others."""
    return np.where(np.isin(ids, known), np.searchsorted(known, ids) + 1, 0)


def class_precision(precision: np.ndarray, k: int, name: str) -> float:
    """One of ``CLASS_FIGURES`` for the class at place ``k``; -1 where it has no ground truth.

    ``precision`` is (T, R, K, A, M): IoU thresholds, recalls, sorted categories, size ranges,
    limits of detections per image.
    """
    ious = _IOU.get(name, slice(None))
    return float(precision[ious, :, k, _AREA.get(name, 0), _AT_MOST_100].mean())


def run_hotcoco(truth: hotcoco.COCO, rows: np.ndarray) -> hotcoco.COCOeval:
    """A finished evaluation by hotcoco, a port of pycocotools to Rust."""
    run = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox")
    run.evaluate()
    run.accumulate()
    run.summary_lines()  # fills the results, as summarize() does, but does not print
    return run


def _by_hotcoco(truth: dict[str, Any]) -> Score:
    reference = hotcoco.COCO(truth)

    def score(rows: np.ndarray) -> tuple[Sequence[float], np.ndarray]:
        run = run_hotcoco(reference, rows)
        results = run.get_results()
        assert run.eval is not None
        return [results[key] for key in MONITORS], run.eval["precision"]

    return score


def _by_pycocotools(truth: dict[str, Any]) -> Score:
    """Silenced: pycocotools reports each of its steps on stdout."""

    def index(dataset: dict[str, Any]) -> COCO:
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        reference = index(truth)

    def score(rows: np.ndarray) -> tuple[Sequence[float], np.ndarray]:
        with contextlib.redirect_stdout(io.StringIO()):
            # loadRes cannot be empty
            found = reference.loadRes(rows) if len(rows) else index({**truth, "annotations": []})
            run = COCOeval(reference, found, "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return run.stats, run.eval["precision"]

    return score


_BACKENDS: dict[str, Callable[[dict[str, Any]], Score]] = {
    "hotcoco": _by_hotcoco,
    "pycocotools": _by_pycocotools,
}


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
