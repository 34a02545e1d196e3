"""What a detector does wrong: kinds of errors, confusions, calibration; counted by hotcoco.

TIDE is Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020
(arXiv:2008.08115): every wrong box has one kind of error, and a kind's weight is the AP50 that
mending it would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

RIGHT, WRONG, NOT_COUNTED = 1, 0, -1

MATCH_IOU = 0.5
"""From which on a box is a truth's."""

BACKGROUND_IOU = 0.1
"""Below which a box has nothing to do with a truth."""

TIDE_KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
SIZES = {"AP": 0, "APs": 1, "APm": 2, "APl": 3}
"""Name -> place among COCO's size ranges."""

_AT_MOST_100 = 2  # index of 100 among the limits 1, 10, 100 of detections per image and class
_SCORE = 5  # column of the rows
_IOU_050, _IOU_075 = 0, 5  # indices among the thresholds 0.50, 0.55, .. 0.95


@dataclass(frozen=True, slots=True)
class TideError:
    """One kind of error.

    Attributes:
        count: how many boxes, or truths, have it.
        ap_lost: what AP50 would gain without it.
    """

    count: int
    ap_lost: float


@dataclass(frozen=True, kw_only=True)
class Truth:
    """N truths, in the order of a COCO json.

    Attributes:
        image_ids, category_ids: int (N,).
        boxes_xyxy_px: float64 (N, 4).
        areas_px2: float64 (N,), by which a truth is small or large.
        ignored: bool (N,), need not be found.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes_xyxy_px: np.ndarray
    areas_px2: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of_coco(cls, ground_truth: Mapping[str, Any]) -> Truth:
        """Of a COCO json as a dict."""
        entries = ground_truth["annotations"]
        boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
        return cls(
            image_ids=np.array([entry["image_id"] for entry in entries], np.int64),
            category_ids=np.array([entry["category_id"] for entry in entries], np.int64),
            boxes_xyxy_px=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            areas_px2=np.array([entry["area"] for entry in entries], np.float64),
            ignored=np.array([entry["iscrowd"] for entry in entries], bool),
        )

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The boxes of a range of confidences.

    Attributes:
        low, high: the range.
        confidence: their mean.
        share_right: how many of them match a truth.
        count: how many there are.
    """

    low: float
    high: float
    confidence: float
    share_right: float
    count: int


@dataclass(frozen=True, kw_only=True)
class DetectionErrors:
    """What is right and wrong about D detections of N truths in K categories.

    A figure is NaN where there is no truth.

    Attributes:
        stats: COCO's 12 figures.
        per_class: AP, AP50, AP75, APs, APm, APl and calibration_error by category id.
        tide: by kind; ``FP`` and ``FN`` (AP alone) are all wrong boxes and all misses together.
        conf: the confidence at which F1 of all boxes is best.
        precision, recall, f1: of the boxes of at least ``conf``, at IoU 0.5.
        confusion: int (K + 1, K + 1) of the same boxes: truth by answer, in the order of the
            category ids; the last row is of boxes without a truth, the last column of misses.
        calibration: in equal ranges of the confidence.
        calibration_error: the mean gap between confidence and share of right boxes.
        verdicts: int (D,), RIGHT, WRONG or NOT_COUNTED (ignored truths, or beyond 100 per image).
        truth: what there is to find.
        found_by: int (N,), the detection that has found a truth; -1 none.
    """

    stats: dict[str, float]
    per_class: dict[int, dict[str, float]]
    tide: dict[str, TideError]
    conf: float
    precision: float
    recall: float
    f1: float
    confusion: np.ndarray
    calibration: list[CalibrationBin]
    calibration_error: float
    verdicts: np.ndarray
    truth: Truth
    found_by: np.ndarray


def find_errors(
    ground_truth: Mapping[str, Any],
    image_ids: np.ndarray,
    category_ids: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    scores: np.ndarray,
) -> DetectionErrors:
    """Compare detections with the truth.

    Args:
        ground_truth: in COCO's form; every annotation has its ``area`` and ``iscrowd``.
        image_ids, category_ids: int (D,).
        boxes_xyxy_px: float (D, 4), in pixels of the original images.
        scores: float (D,).
    """
    ids = sorted(category["id"] for category in ground_truth["categories"])
    truth, reference = Truth.of_coco(ground_truth), hotcoco.COCO(_renumbered(ground_truth, ids))
    rows = _rows(image_ids, category_ids, boxes_xyxy_px, scores)
    run = hotcoco.COCOeval(reference, reference.load_res(rows), "bbox")
    run.evaluate()
    run.accumulate()
    run.summary_lines()  # fills the results
    verdicts, found_by = _verdicts(run, len(scores), len(truth))
    to_find = int((~truth.ignored).sum())
    conf, precision, recall, f1 = _best_f1(rows[:, _SCORE], verdicts, to_find)
    results = run.get_results()
    calibration = run.calibration(iou_threshold=MATCH_IOU)
    return DetectionErrors(
        stats={name: _known(results[name]) for name in run.metric_keys()},
        per_class=_per_class(run, ids, calibration["per_category"]),
        tide=_tide(run),
        conf=conf,
        precision=precision,
        recall=recall,
        f1=f1,
        confusion=run.confusion_matrix(iou_thr=MATCH_IOU, min_score=conf)["matrix"].astype(int),
        calibration=[
            CalibrationBin(
                entry["bin_lower"],
                entry["bin_upper"],
                entry["avg_confidence"],
                entry["avg_accuracy"],
                entry["count"],
            )
            for entry in calibration["bins"]
        ],
        calibration_error=calibration["ece"],
        verdicts=verdicts,
        truth=truth,
        found_by=found_by,
    )


def _renumbered(ground_truth: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """Annotations numbered from 1, without outlines; categories called by their ids.

    Two classes may have one name, by which hotcoco would take them for one.
    """
    sizes, kept = ("id", "width", "height"), ("image_id", "category_id", "bbox", "area", "iscrowd")
    return {
        "images": [{name: image[name] for name in sizes} for image in ground_truth["images"]],
        "annotations": [
            {"id": number, **{name: entry[name] for name in kept}}
            for number, entry in enumerate(ground_truth["annotations"], start=1)
        ],
        "categories": [{"id": number, "name": str(number)} for number in ids],
    }


def _rows(
    image_ids: np.ndarray, category_ids: np.ndarray, boxes_xyxy_px: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """Float64 (D, 7): image id, x, y, width, height, score, category id; not finite ones are 0."""
    boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)
    boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0.0)
    scores = np.nan_to_num(np.asarray(scores, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    columns = (image_ids, boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores, category_ids)
    return np.column_stack(columns).astype(np.float64)


def _verdicts(run: Any, detections: int, truths: int) -> tuple[np.ndarray, np.ndarray]:
    """By row and by truth; hotcoco numbers both from 1."""
    known = run.image_diagnostics(iou_thr=MATCH_IOU)
    meaning = {"tp": RIGHT, "fp": WRONG}
    verdicts, found_by = np.full(detections, NOT_COUNTED), np.full(truths, -1)
    for number, status in known["dt_status"].items():
        verdicts[number - 1] = meaning.get(status, NOT_COUNTED)
    for number, detection in known["gt_match"].items():
        found_by[number - 1] = detection - 1
    return verdicts, found_by


def _best_f1(
    scores: np.ndarray, verdicts: np.ndarray, to_find: int
) -> tuple[float, float, float, float]:
    """Confidence, precision, recall and F1 where the latter is best."""
    counted = np.flatnonzero(verdicts != NOT_COUNTED)
    order = counted[np.argsort(-scores[counted], kind="stable")]
    right = np.cumsum(verdicts[order] == RIGHT)
    if not len(order) or right[-1] == 0:
        return 0.0, 0.0, 0.0, 0.0
    f1 = 2 * right / (np.arange(1, len(order) + 1) + to_find)
    f1[:-1][scores[order][:-1] == scores[order][1:]] = -1  # a threshold keeps all equal scores
    best = int(f1.argmax())
    precision, recall = right[best] / (best + 1), right[best] / max(to_find, 1)
    return float(scores[order[best]]), float(precision), float(recall), float(f1[best])


def _per_class(
    run: Any, ids: Sequence[int], calibration: Mapping[str, float]
) -> dict[int, dict[str, float]]:
    """From the precision (IoU thresholds, recalls, categories, size ranges, limits)."""
    precision = run.eval["precision"][..., _AT_MOST_100]
    figures: dict[int, dict[str, float]] = {}
    for k, number in enumerate(ids):
        mine = precision[:, :, k]  # (T, R, A)
        means = {name: _known(mine[:, :, place].mean()) for name, place in SIZES.items()}
        figures[number] = {
            "AP": means.pop("AP"),
            "AP50": _known(mine[_IOU_050, :, 0].mean()),
            "AP75": _known(mine[_IOU_075, :, 0].mean()),
            **means,
            "calibration_error": calibration.get(str(number), float("nan")),
        }
    return figures


def _tide(run: Any) -> dict[str, TideError]:
    errors = run.tide_errors(pos_thr=MATCH_IOU, bg_thr=BACKGROUND_IOU)
    counts, lost = errors["counts"], errors["delta_ap"]
    return {kind: TideError(counts.get(kind, 0), lost[kind]) for kind in (*TIDE_KINDS, "FP", "FN")}


def _known(figure: float) -> float:
    """COCO says -1 where there is no truth."""
    return float(figure) if figure >= 0 else float("nan")
