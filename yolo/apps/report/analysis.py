"""The page of ``validation.py --analyse``: what a detector does wrong, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from yolo.apps.report.charts import reliability_chart
from yolo.apps.report.gallery import MOST_PER_IMAGE, Gallery
from yolo.apps.report.page import (
    Bar,
    Cell,
    Html,
    Section,
    Shaded,
    grid,
    note,
    page,
    table,
    text,
    write_page,
)
from yolo.evaluate.detection_evaluator import Found
from yolo.evaluate.metrics.detection_errors import (
    BACKGROUND_IOU,
    MATCH_IOU,
    TIDE_KINDS,
    DetectionErrors,
    find_errors,
)
from yolo.evaluate.scoring import DetectorScorer

FILE_NAME = "analysis.html"
"""Beside the checkpoint, or in the folder that is given."""

MOST_CLASSES_IN_MATRIX = 25
"""With more of them only the most frequent confusions are listed."""

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
_EDGES_PX2 = (32.0**2, 96.0**2)


def write_analysis(
    scorer: DetectorScorer, found: Found, log: Callable[[str], None], place: Path | None = None
) -> Path:
    """Write the page of one checkpoint.

    Args:
        scorer: the checkpoint and the data.
        found: in the data, by that checkpoint.
        say: prints lines.
        place: a file that ends in .html, or a folder; None is the checkpoint's own folder.

    Raises:
        UserError: the page cannot be written, or an image cannot be read.
    """
    path = place or scorer.path.parent
    path = path if path.suffix.lower() in (".html", ".htm") else path / FILE_NAME
    write_page(path, analysis_page(scorer, found))
    log(f"\nanalysis: {path}")
    return path


def analysis_page(scorer: DetectorScorer, found: Found) -> str:
    """The whole page."""
    run = scorer.path.resolve().parent.name
    title = f"Error analysis of {run}/{scorer.path.name}"
    subtitle = (
        f"step {scorer.step:,} · data.{scorer.split}: {len(scorer.dataset):,} images · "
        f"{len(found.scores):,} boxes of confidence {scorer.conf:g} or more · "
        f"trained at {scorer.image_size_px} px"
    )
    return page(title, subtitle, analysis_sections(scorer, found))


def analysis_sections(scorer: DetectorScorer, found: Found) -> list[Section]:
    """What the page says, for another page that wants it too."""
    dataset = scorer.dataset
    errors = find_errors(
        dataset.ground_truth(),
        found.image_ids,
        np.asarray(dataset.category_ids)[found.labels],
        found.boxes_xyxy_px,
        found.scores,
    )
    gallery = Gallery(dataset, found, errors)
    return [
        Section("Figures", _figures(scorer, found, errors)),
        Section("Kinds of errors", _kinds(errors)),
        Section("Confusions", _confusions(scorer, errors)),
        Section("Classes", _classes(scorer, found, errors)),
        Section("Sizes", _sizes(errors)),
        Section("Calibration", _calibration(errors)),
        Section("Worst false positives", _false_positives(gallery)),
        Section("Worst misses", _misses(gallery, errors)),
    ]


def _figures(scorer: DetectorScorer, found: Found, errors: DetectionErrors) -> list[Html]:
    """The metrics that the model is judged by, and the best working point."""
    stats = scorer.evaluator.score(found).stats
    best = (
        f"F1 is best at confidence {errors.conf:.3f}: there {errors.precision:.1%} of the boxes "
        f"are right and {errors.recall:.1%} of the objects are found (IoU {MATCH_IOU:g}). "
        "Confusions and misses below are at this confidence."
    )
    nothing = "No box is right at any confidence."
    head, row = list(stats), [_known(value) for value in stats.values()]
    return [text(best if errors.f1 > 0 else nothing), table(head, [row])]


def _kinds(errors: DetectionErrors) -> list[Html]:
    lost = {kind: max(errors.tide[kind].ap_lost, 0.0) for kind in TIDE_KINDS}
    total = sum(lost.values())
    rows: list[list[Cell]] = []
    for kind in sorted(TIDE_KINDS, key=lambda kind: -lost[kind]):
        share = lost[kind] / total if total else 0.0
        name, where = KINDS[kind]
        count = errors.tide[kind].count
        rows.append([name, where, count, lost[kind], Bar(f"{share:.1%}", share)])
    both = (
        f"Without any wrong box AP50 would gain {errors.tide['FP'].ap_lost:.3f}, without any "
        f"missed object {errors.tide['FN'].ap_lost:.3f}; it is {errors.stats['AP50']:.3f}."
    )
    about = (
        "TIDE (Bolya et al. 2020): each wrong box has one kind of error, and a kind weighs what "
        "AP50 would gain without it. All boxes count, those of low confidence too: many errors "
        f"there cost little. A box is right from IoU {MATCH_IOU:g} on, and on nothing below "
        f"{BACKGROUND_IOU:g}."
    )
    head = ("error", "the box is", "count", "AP50 lost", "share of it")
    return [table(head, rows), text(both), note(about)]


def _confusions(scorer: DetectorScorer, errors: DetectionErrors) -> list[Html]:
    matrix = errors.confusion
    if not matrix.any():
        return [text("There is neither a truth nor a box.")]
    names = _names(scorer)
    about = (
        f"Boxes of confidence {errors.conf:.3f} or more, matched from IoU {MATCH_IOU:g} on "
        "whatever their class. Shades are shares of the row."
    )
    if len(names) <= MOST_CLASSES_IN_MATRIX:
        return [_matrix(matrix, names), note(about), _most_confused(matrix, names)]
    return [_most_confused(matrix, names), note(about)]


def _matrix(matrix: np.ndarray, names: list[str]) -> Html:
    sums = np.maximum(matrix.sum(axis=1), 1)
    rows: list[list[Cell]] = [
        [name, *(Shaded(int(n), int(n) / sums[i]) for n in matrix[i]), int(matrix[i].sum())]
        for i, name in enumerate([*names, "nothing there"])
    ]
    rows[-1][len(names) + 1] = None
    return table(("truth ↓ answer →", *names, "missed", "all"), rows)


def _most_confused(matrix: np.ndarray, names: list[str]) -> Html:
    """Pairs of classes alone: background and misses have their columns elsewhere."""
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order]
    rows: list[list[Cell]] = [
        [
            names[truth],
            names[answer],
            int(between[truth, answer]),
            _share(between, matrix, truth, answer),
        ]
        for truth, answer in pairs
        if between[truth, answer]
    ]
    if not rows:
        return text("No class is taken for another one.")
    head = ("truth", "taken for", "boxes", "of its truths")
    return table(head, rows, caption="The most frequent confusions")


def _share(between: np.ndarray, matrix: np.ndarray, truth: int, answer: int) -> Cell:
    share = between[truth, answer] / matrix[truth].sum()
    return Bar(f"{share:.1%}", float(share))


def _classes(scorer: DetectorScorer, found: Found, errors: DetectionErrors) -> list[Html]:
    dataset = scorer.dataset
    classes = len(dataset.class_names)
    to_find = errors.truth.category_ids[~errors.truth.ignored]
    boxes = np.bincount(found.labels[found.scores >= errors.conf], minlength=classes)
    rows: list[list[Cell]] = []
    for label, (name, category) in enumerate(
        zip(dataset.class_names, dataset.category_ids, strict=True)
    ):
        figures = errors.per_class[category]
        row: list[Cell] = [name, int((to_find == category).sum()), int(boxes[label])]
        row += [Bar(_written(figures[key]), figures[key]) for key in ("AP", "AP50", "AP75")]
        rows.append(row + [figures[key] for key in ("APs", "APm", "APl", "calibration_error")])
    head = ["class", "truths", f"boxes ≥ {errors.conf:.2f}", "AP", "AP50", "AP75"]
    head += ["AP small", "AP medium", "AP large", "calibration error"]
    whole = table(head, sorted(rows, key=lambda row: _order(row[3])))
    return [whole, note("The worst class first; COCO's AP, a mean over IoU 0.50 to 0.95.")]


def _order(cell: Cell) -> float:
    """Classes without a truth come last."""
    assert isinstance(cell, Bar)
    return cell.share if math.isfinite(cell.share) else math.inf


def _sizes(errors: DetectionErrors) -> list[Html]:
    areas = errors.truth.areas_px2[~errors.truth.ignored]
    counts = np.bincount(np.digitize(areas, _EDGES_PX2), minlength=3)
    rows: list[list[Cell]] = [
        [name, area, int(counts[number]), Bar(_written(ap), ap), Bar(_written(ar), ar)]
        for number, (letter, (name, area)) in enumerate(SIZES.items())
        for ap, ar in [(errors.stats[f"AP{letter}"], errors.stats[f"AR{letter}"])]
    ]
    about = "Areas in pixels of the original images; AR is the recall at 100 boxes."
    return [table(("objects", "area", "truths", "AP", "AR"), rows), note(about)]


def _calibration(errors: DetectionErrors) -> list[Html]:
    bins = [entry for entry in errors.calibration if entry.count]
    if not bins:
        return [text("There is no box.")]
    gap = (
        f"Confidence and the share of right boxes differ by {errors.calibration_error:.3f} in the "
        "mean over all boxes (expected calibration error). Below the dotted line the model is "
        "surer than it is right."
    )
    rows: list[list[Cell]] = [
        [
            f"{b.low:.1f} to {b.high:.1f}",
            b.count,
            b.confidence,
            Bar(f"{b.share_right:.3f}", b.share_right),
        ]
        for b in bins
    ]
    confidence, right = (
        np.array([getattr(b, name) for b in bins]) for name in ("confidence", "share_right")
    )
    chart = reliability_chart("Share of right boxes over confidence", confidence, right)
    head = ("confidence", "boxes", "mean", "right")
    return [text(gap), grid([chart, table(head, rows)])]


def _false_positives(gallery: Gallery) -> list[Html]:
    pictures = gallery.false_positives()
    if not pictures:
        return [text("There is none.")]
    about = (
        f"The wrong boxes of the highest confidence, at most {MOST_PER_IMAGE} of an image: red the "
        "box, green what is there. Boxes on nothing may be right and the annotation missing."
    )
    return [text(about), grid(pictures, least_px=210)]


def _misses(gallery: Gallery, errors: DetectionErrors) -> list[Html]:
    pictures = gallery.misses()
    if not pictures:
        return [text("There is none.")]
    about = (
        f"Objects without a box of confidence {errors.conf:.3f} or more, those without any box "
        f"first and of them the largest; at most {MOST_PER_IMAGE} of an image: orange the object, "
        "red the box that comes nearest."
    )
    return [text(about), grid(pictures, least_px=210)]


def _names(scorer: DetectorScorer) -> list[str]:
    """In the order of the category ids, as the matrix has it."""
    pairs = zip(scorer.dataset.category_ids, scorer.dataset.class_names, strict=True)
    return [name for _, name in sorted(pairs)]


def _known(figure: float) -> float | None:
    """Metrics say -1 where there is no truth."""
    return None if figure < 0 else figure


def _written(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None
