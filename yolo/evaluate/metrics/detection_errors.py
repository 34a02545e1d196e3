"""What a detector does wrong: kinds of errors, confusions, calibration; counted by hotcoco.

TIDE is Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020
(arXiv:2008.08115): every wrong box has one kind of error, and a kind's weight is the AP50 that
would be gained without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from yolo.evaluate.metrics.coco import CLASS_FIGURES, SCORE, BoxTruth, class_precision, run_hotcoco
from yolo.evaluate.metrics.metric import NOT_COUNTED, RIGHT, WRONG, DetectedBoxes, PrecisionRecall

MATCH_IOU = 0.5  # from which on a box is a truth's
BACKGROUND_IOU = 0.1  # below which a box has nothing to do with a truth
TIDE_KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")


@dataclass(frozen=True, slots=True)
class TideError:
    """How many boxes, or truths, have an error of a kind, and what AP50 would gain without it."""

    count: int
    ap_lost: float


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The boxes of a range of confidences."""

    low: float
    high: float
    confidence: float  # their mean
    share_right: float  # how many of them match a truth
    count: int


@dataclass(frozen=True, kw_only=True)
class DetectionErrors:
    """What is right and wrong about D detections of N truths in K categories.

    A figure is NaN where there is no truth. Precision, recall and F1 are of the boxes of at least
    ``conf``, at IoU 0.5. So is the confusion, truth by answer in the order of the category ids: its
    last row is of boxes without a truth, its last column of misses.
    """

    stats: dict[str, float]  # COCO's 12 figures
    per_class: dict[int, dict[str, float]]  # CLASS_FIGURES and calibration_error by category id
    tide: dict[str, TideError]  # by kind; FP, FN (AP alone) are all wrong boxes and all misses
    conf: float  # the confidence at which F1 of all boxes is best
    precision: float
    recall: float
    f1: float
    confusion: np.ndarray  # int (K + 1, K + 1)
    calibration: list[CalibrationBin]  # in equal ranges of the confidence
    calibration_error: float  # the mean gap between confidence and share of right boxes
    verdicts: np.ndarray  # int (D,); ignored truths, or beyond 100 per image, are NOT_COUNTED
    truth: BoxTruth
    found_by: np.ndarray  # int (N,), the detection that has found a truth; -1 none


def find_errors(ground_truth: Mapping[str, Any], found: DetectedBoxes) -> DetectionErrors:
    """Compare detections with the truth, a COCO json as a dict."""
    truth = BoxTruth(ground_truth)
    rows = truth.rows(found)
    run: Any = run_hotcoco(hotcoco.COCO(truth.content), rows)
    known = run.image_diagnostics(iou_thr=MATCH_IOU)  # which numbers rows and truths from 1
    meaning = {"tp": RIGHT, "fp": WRONG}
    statuses = [known["dt_status"].get(number) for number in range(1, len(rows) + 1)]
    verdicts = np.array([meaning.get(status, NOT_COUNTED) for status in statuses], np.int64)
    numbers = range(1, len(truth.ignored) + 1)
    found_by = np.array([known["gt_match"].get(number, 0) - 1 for number in numbers], np.int64)
    counted = np.flatnonzero(verdicts != NOT_COUNTED)
    order = counted[np.argsort(-rows[counted, SCORE], kind="stable")]
    curve = PrecisionRecall.of_hits(
        verdicts[order] == RIGHT, rows[order, SCORE], int((~truth.ignored).sum())
    )
    conf, precision, recall, f1 = curve.best_f1()
    results, calibration = run.get_results(), run.calibration(iou_threshold=MATCH_IOU)
    precision_of, class_errors = run.eval["precision"], calibration["per_category"]
    tide = run.tide_errors(pos_thr=MATCH_IOU, bg_thr=BACKGROUND_IOU)
    bin_keys = ("bin_lower", "bin_upper", "avg_confidence", "avg_accuracy", "count")
    return DetectionErrors(
        stats={name: _known(results[name]) for name in run.metric_keys()},
        per_class={
            category: {
                **{name: _known(class_precision(precision_of, k, name)) for name in CLASS_FIGURES},
                "calibration_error": class_errors.get(str(k + 1), float("nan")),
            }
            for k, category in enumerate(truth.known_categories.tolist())
        },
        tide={
            kind: TideError(tide["counts"].get(kind, 0), tide["delta_ap"][kind])
            for kind in (*TIDE_KINDS, "FP", "FN")
        },
        conf=conf,
        precision=precision,
        recall=recall,
        f1=f1,
        confusion=run.confusion_matrix(iou_thr=MATCH_IOU, min_score=conf)["matrix"].astype(int),
        calibration=[CalibrationBin(*(b[key] for key in bin_keys)) for b in calibration["bins"]],
        calibration_error=calibration["ece"],
        verdicts=verdicts,
        truth=truth,
        found_by=found_by,
    )


def _known(figure: float) -> float:
    """NaN for COCO's -1, where there is no truth."""
    return float(figure) if figure >= 0 else float("nan")
