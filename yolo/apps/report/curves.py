"""Precision and recall of scored checkpoints: as a picture, and in the TensorBoard of each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from yolo.apps.report.drawing import save_image
from yolo.apps.report.plots import Line, Panel, draw_classes, draw_models
from yolo.config.score_arguments import is_picture
from yolo.evaluate.metrics.metric import (
    RECALL_LEVELS,
    PrecisionRecall,
    average_precision,
    mean_precision,
    pooled,
)
from yolo.evaluate.scoring import ModelCurves
from yolo.train.log import EventFile

FILE_NAME = "precision_recall.png"  # in a folder that is given instead of a file
MOST_CLASSES = 30  # with more of them, several models are compared without a panel for each class


def write_curves(models: Sequence[ModelCurves], place: Path, log: Callable[[str], None]) -> None:
    """Write one picture of all models, and each model's own into the folder of its run.

    Args:
        models: one or several.
        place: a file, or a folder for ``FILE_NAME``.
        log: prints lines.

    Raises:
        UserError: the picture cannot be written.
    """
    own = [_draw(model) for model in models]
    path = place if is_picture(place) else place / FILE_NAME
    save_image(path, own[0] if len(own) == 1 else _compare(models))
    log(f"\nprecision-recall curves: {path}")
    for model, picture in zip(models, own, strict=True):
        _show_in_tensorboard(model, picture, log)


def _show_in_tensorboard(
    model: ModelCurves, picture: np.ndarray, log: Callable[[str], None]
) -> None:
    folder = model.checkpoint.resolve().parent
    try:
        with closing(EventFile(folder)) as events:
            events.write_picture(model.step, f"precision_recall/{model.split}", picture)
    except OSError as error:  # a checkpoint may lie where nobody may write
        log(f"  not in TensorBoard: {folder} cannot be written ({error.strerror or error})")
    else:
        log(f"  in TensorBoard: {folder}")


def _draw(model: ModelCurves) -> np.ndarray:
    """All classes of one model: uint8 (H, W, 3)."""
    title = f"{_name(model.checkpoint)}, step {model.step}, data.{model.split}, IoU {model.iou:g}"
    return draw_classes(_lines(model.curves), _mean("mean", model), title=title)


def _compare(models: Sequence[ModelCurves]) -> np.ndarray:
    """Several models in one picture: over all classes, then class by class."""
    names = [_name(model.checkpoint) for model in models]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, start=1)]
    of_name = dict(zip(names, models, strict=True))
    panels = _overview(of_name)
    classes = dict.fromkeys(name for model in models for name in model.curves)
    for class_name in classes if len(classes) <= MOST_CLASSES else ():
        known = {n: m.curves[class_name] for n, m in of_name.items() if class_name in m.curves}
        if lines := _lines(known):
            panels.append(Panel(title=class_name, lines=lines, figure="AP"))
    ious = " and ".join(dict.fromkeys(f"{model.iou:g}" for model in models))
    return draw_models(panels, names, title=f"data.{models[0].split}, IoU {ious}")


def _overview(of_name: dict[str, ModelCurves]) -> list[Panel]:
    """The mean of the classes; recall and precision of all boxes of at least a confidence."""
    boxes = {name: pooled(model.curves.values()) for name, model in of_name.items()}
    recall, precision = (
        [
            Line(name=name, x=curve.scores, y=values, figure=values[-1] if len(values) else 0.0)
            for name, curve in boxes.items()
            for values in [getattr(curve, what)]
        ]
        for what in ("recall", "precision")
    )
    means = [_mean(name, model) for name, model in of_name.items()]
    return [
        Panel(title="mean of the classes", lines=means, figure="mAP"),
        Panel(title="all classes", lines=recall, figure="of all boxes", x="confidence", y="recall"),
        Panel(title="all classes", lines=precision, figure="of all boxes", x="confidence"),
    ]


def _lines(curves: dict[str, PrecisionRecall]) -> list[Line]:
    """Of the curves that have a truth, each with its average precision."""
    return [
        Line.steps(name, curve.recall, curve.envelope(), average_precision(curve))
        for name, curve in curves.items()
        if curve.truths
    ]


def _mean(name: str, model: ModelCurves) -> Line:
    """Of the same classes; its figure is the mAP."""
    figures = [line.figure for line in _lines(model.curves)]
    precision = mean_precision(model.curves.values())
    return Line.steps(name, RECALL_LEVELS, precision, float(np.mean(figures)) if figures else 0.0)


def _name(checkpoint: Path) -> str:
    """The run and the file."""
    return f"{checkpoint.resolve().parent.name}/{checkpoint.stem}"
