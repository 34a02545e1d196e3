"""The page of ``validation.py --analyse``: what a detector does wrong, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolo.apps.report.gallery import MOST_PER_IMAGE, Gallery
from yolo.apps.report.page import Cell, Filled, reliability_chart, render, write_page
from yolo.evaluate.evaluators import Found
from yolo.evaluate.metrics.detection_errors import (
    BACKGROUND_IOU,
    MATCH_IOU,
    TIDE_KINDS,
    DetectionErrors,
    find_errors,
)
from yolo.evaluate.scoring import DetectorScorer

FILE_NAME = "analysis.html"  # beside the checkpoint, or in the folder that is given
MOST_CLASSES_IN_MATRIX = 25  # with more of them only the most frequent confusions are listed
MOST_CONFUSIONS = 30

KINDS = {
    "Cls": ("wrong class", "on an object of another class"),
    "Loc": ("badly placed", "on an object of its class, but overlapping it too little"),
    "Both": ("wrong class and badly placed", "near an object of another class"),
    "Dupe": ("duplicate", "on an object that a more confident box has found"),
    "Bkg": ("background", "where no object is"),
    "Miss": ("missed", "an object without any box, not even a wrong one"),
}
"""TIDE's kinds of errors: name, and where the box is."""

SIZES = {
    "s": ("small", "less than 32² px"),
    "m": ("medium", "32² to 96² px"),
    "l": ("large", "more than 96² px"),
}


def write_analysis(
    scorer: DetectorScorer, found: Found, log: Callable[[str], None], place: Path | None = None
) -> Path:
    """Write a checkpoint's page to an .html file or a folder; None is the checkpoint's own."""
    path = place or scorer.path.parent
    path = path if path.suffix.lower() in (".html", ".htm") else path / FILE_NAME
    dataset = scorer.dataset
    errors = find_errors(dataset.ground_truth(), found.boxes)
    gallery = Gallery(dataset, found, errors)
    names = list(dataset.class_names)
    page = render(
        "analysis.html",
        scorer=scorer,
        found=found,
        errors=errors,
        match_iou=MATCH_IOU,
        background_iou=BACKGROUND_IOU,
        stats={
            name: None if value < 0 else value  # metrics have -1 where there is no truth
            for name, value in scorer.evaluator.score(found).stats.items()
        },
        kinds=_kinds(errors),
        matrix=_matrix(errors.confusion, names) if len(names) <= MOST_CLASSES_IN_MATRIX else None,
        names=names,
        confusions=_confusions(errors.confusion, names),
        classes=_classes(names, found, errors),
        sizes=_sizes(errors),
        calibration=_calibration(errors),
        most_per_image=MOST_PER_IMAGE,
        false_positives=gallery.false_positives(),
        misses=gallery.misses(),
    )
    write_page(path, page, is_named=path == place)
    log(f"\nanalysis: {path}")
    return path


def _kinds(errors: DetectionErrors) -> list[list[Cell]]:
    """TIDE's kinds of errors, the costliest first."""
    lost = {kind: max(errors.tide[kind].ap_lost, 0.0) for kind in TIDE_KINDS}
    total = sum(lost.values()) or 1.0
    return [
        [*KINDS[kind], errors.tide[kind].count, lost[kind], _percent(lost[kind] / total)]
        for kind in sorted(TIDE_KINDS, key=lambda kind: -lost[kind])
    ]


def _matrix(matrix: np.ndarray, names: list[str]) -> list[list[Cell]]:
    """Truth by answer, shaded by the share of the row; int (K + 1, K + 1) with background last."""
    rows: list[list[Cell]] = []
    for name, counts in zip([*names, "nothing there"], matrix.tolist(), strict=True):
        total = sum(counts)
        shades = [Filled(count, count / max(total, 1), "shade") for count in counts]
        rows.append([name, *shades, total])
    rows[-1][len(names) + 1] = None
    return rows


def _confusions(matrix: np.ndarray, names: list[str]) -> list[list[Cell]]:
    """The most frequent pairs of classes: background and misses have their columns elsewhere."""
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order]
    return [
        [names[truth], names[answer], int(boxes), _percent(float(boxes / matrix[truth].sum()))]
        for truth, answer in pairs
        if (boxes := between[truth, answer])
    ]


def _classes(names: list[str], found: Found, errors: DetectionErrors) -> list[list[Cell]]:
    """Counts and average precisions, the worst class first, those without a truth last."""
    to_find = errors.truth.category_ids[~errors.truth.ignored]
    labels = found.labels[found.scores >= errors.conf]
    truths, boxes = (np.bincount(each, minlength=len(names)).tolist() for each in (to_find, labels))
    precisions = [errors.per_class[label]["AP"] for label in range(len(names))]
    return [
        [
            *(names[label], truths[label], boxes[label]),
            *(_bar(errors.per_class[label][key]) for key in ("AP", "AP50", "AP75")),
            *(errors.per_class[label][key] for key in ("APs", "APm", "APl", "calibration_error")),
        ]
        for label in np.argsort(precisions, kind="stable").tolist()  # NaN is last
    ]


def _sizes(errors: DetectionErrors) -> list[list[Cell]]:
    areas = errors.truth.areas_px2[~errors.truth.ignored]
    counts = np.bincount(np.digitize(areas, (32.0**2, 96.0**2)), minlength=3).tolist()
    return [
        [*described, count, _bar(errors.stats[f"AP{letter}"]), _bar(errors.stats[f"AR{letter}"])]
        for count, (letter, described) in zip(counts, SIZES.items(), strict=True)
    ]


def _calibration(errors: DetectionErrors) -> dict[str, Any]:
    """Chart and table of the bins that hold boxes; empty without a box."""
    bins = [entry for entry in errors.calibration if entry.count]
    if not bins:
        return {}
    confidence, right = np.array([(entry.confidence, entry.share_right) for entry in bins]).T
    rows = [
        [f"{b.low:.1f} to {b.high:.1f}", b.count, b.confidence, _bar(b.share_right)] for b in bins
    ]
    title = "Share of right boxes over confidence"
    return {"chart": reliability_chart(title, confidence, right), "rows": rows}


def _percent(share: float) -> Filled:
    return Filled(f"{share:.1%}", share)


def _bar(figure: float) -> Filled:
    return Filled(figure, figure)
