"""Lines over a shared x, drawn by matplotlib as pictures: uint8 (H, W, 3) RGB."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from yolo.apps.report.drawing import save_image
from yolo.config.command_line import is_picture
from yolo.evaluate.metrics.metric import PrecisionRecall, average_precision
from yolo.evaluate.scoring import ModelCurves
from yolo.train.log import EventFile

FILE_NAME = "precision_recall.png"  # in a folder that is given instead of a file
MOST_CLASSES = 30  # with more of them, several models are compared without a panel for each class
LEGEND_ROWS = 25
DOTS_PER_INCH = 120
TITLE_LETTERS, NAME_LETTERS, LEGEND_LETTERS = 90, 40, 105  # longer ones are cut
LOG_SPAN = 1e6  # a logarithmic axis ends so far below the highest value: less is no news
RECALL_LEVELS = np.linspace(0, 1, 101)  # where the curves of several classes are averaged
UNIT_SQUARE = {"xlim": (0, 1.01), "ylim": (0, 1.03)}  # with room for the lines at 1
LOOKS = [(style, f"C{i}") for style in ("-", "--", ":", "-.") for i in range(10)]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a plot or chart."""

    name: str  # in the legend
    x: np.ndarray  # (P,)
    y: np.ndarray  # (P,), NaN is a gap
    figure: float = 0.0  # what it comes to, written in the legend where a plot has figures
    marker: str = ""  # of the points, as matplotlib names it; empty draws none
    colour: int = 0  # in charts: a number into their colours
    style: str = "-"  # in charts, as matplotlib names it

    @classmethod
    def steps(cls, name: str, recall: np.ndarray, precision: np.ndarray, figure: float) -> Line:
        """Precision over recall in steps, down to 0 where no more is found.

        The area below is the average precision. ``recall`` (P,) never falls; ``precision`` (P,) is
        the best one at this recall or a higher one.
        """
        new = (np.diff(recall, prepend=0.0) > 0) & (precision > 0)
        left = np.concatenate([[0.0], recall[new][:-1]])[: new.sum()]
        x = np.stack([left, recall[new]], axis=1).ravel()  # (P, 2) -> (2 P,)
        y = np.repeat(precision[new], 2)
        return cls(name=name, x=np.append(x, x[-1:]), y=np.append(y, 0 * y[-1:]), figure=figure)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines of several models, named by them, in one frame; ``figure`` names their figures."""

    title: str
    lines: Sequence[Line]
    figure: str
    x: str = "recall"
    y: str = "precision"


def write_curves(models: Sequence[ModelCurves], place: Path, log: Callable[[str], None]) -> None:
    """Write one picture of all models, and each one's own into the TensorBoard of its run."""
    own = []
    for model in models:
        title = f"{_name(model.checkpoint)}, step {model.step}, data.{model.split}"
        mean = _mean("mean", model)
        own.append(draw_classes(_lines(model.curves), mean, title=f"{title}, IoU {model.iou:g}"))
    path = place if is_picture(place) else place / FILE_NAME
    save_image(path, own[0] if len(own) == 1 else _compare(models))
    log(f"\nprecision-recall curves: {path}")
    for model, picture in zip(models, own, strict=True):
        folder = model.checkpoint.resolve().parent
        try:
            with closing(EventFile(folder)) as events:
                events.write_picture(model.step, f"precision_recall/{model.split}", picture)
        except OSError as error:  # a checkpoint may lie where nobody may write
            log(f"  not in TensorBoard: {folder} cannot be written ({error.strerror or error})")
        else:
            log(f"  in TensorBoard: {folder}")


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
    means = [_mean(name, model) for name, model in of_name.items()]
    panels = [Panel(title="mean of the classes", lines=means, figure="mAP")]
    labels = {"title": "all classes", "figure": "of all boxes", "x": "confidence"}
    for what in ("recall", "precision"):
        lines = []
        for name, model in of_name.items():
            curve = pooled(model.curves.values())
            y = getattr(curve, what)
            lines.append(Line(name=name, x=curve.scores, y=y, figure=y[-1] if len(y) else 0.0))
        panels.append(Panel(lines=lines, y=what, **labels))
    return panels


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


def mean_precision(curves: Iterable[PrecisionRecall]) -> np.ndarray:
    """The envelopes' mean at ``RECALL_LEVELS`` over the curves that have truths: float64 (101,)."""
    rows = [curve.at_recalls(RECALL_LEVELS) for curve in curves if curve.truths]
    return np.mean(rows, axis=0) if rows else np.zeros(len(RECALL_LEVELS))


def pooled(curves: Iterable[PrecisionRecall]) -> PrecisionRecall:
    """All detections of several classes as one curve; classes without a truth are left out."""
    known = [curve for curve in curves if curve.truths]
    nothing = np.zeros(0)
    scores = np.concatenate([nothing, *(curve.scores for curve in known)])
    gains = [np.diff(curve.recall, prepend=0.0) > 0 for curve in known]
    hits = np.concatenate([nothing > 0, *gains])
    order = np.argsort(-scores, kind="stable")
    return PrecisionRecall.of_hits(hits[order], scores[order], sum(c.truths for c in known))


def _name(checkpoint: Path) -> str:
    return f"{checkpoint.resolve().parent.name}/{checkpoint.stem}"


def draw_curves(
    lines: Sequence[Line],
    *,
    title: str,
    x: str,
    y: str,
    y_scale: Literal["linear", "log"] = "linear",
) -> np.ndarray:
    """Several in one frame over whole numbers, their names below it; a linear scale begins at 0."""
    figure = Figure(figsize=(9, 4.5 + 0.22 * len(lines)), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for line, (style, colour) in zip(lines, itertools.cycle(LOOKS), strict=False):
        name = _short(line.name, LEGEND_LETTERS)
        axes.plot(line.x, line.y, style, color=colour, marker=line.marker, label=name)
    axes.set_yscale(y_scale)
    highest = max((float(line.y.max()) for line in lines if len(line.y)), default=1.0)
    axes.set_ylim(bottom=0.0 if y_scale == "linear" else highest / LOG_SPAN)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axes, title, x, y)
    axes.margins(x=0.02)
    figure.legend(loc="outside lower center", ncols=1, fontsize="small")
    return as_picture(figure)


def draw_classes(lines: Sequence[Line], mean: Line, *, title: str) -> np.ndarray:
    """All classes of one model in one frame, the best first in the legend, their mean in black."""
    best_first = sorted(lines, key=lambda line: -line.figure)
    named = (mean, *best_first)
    labels = [f"{line.figure:.3f} {_short(line.name, NAME_LETTERS)}" for line in named]
    columns = math.ceil(len(labels) / LEGEND_ROWS)
    width = 7 + columns * (0.7 + 0.085 * max(map(len, labels)))
    figure = Figure(figsize=(width, 6), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    _label(axes, title, "recall", "precision")
    axes.set(**UNIT_SQUARE)
    axes.plot(mean.x, mean.y, color="black", linewidth=2.5, label=labels[0], zorder=2.1)  # on top
    for line, label, look in zip(best_first, labels[1:], itertools.cycle(LOOKS), strict=False):
        axes.plot(line.x, line.y, look[0], color=look[1], linewidth=1.4, label=label)
    figure.legend(
        loc="outside right upper", ncols=columns, fontsize="small", title="average precision"
    )
    return as_picture(figure)


def draw_models(panels: Sequence[Panel], models: Sequence[str], *, title: str) -> np.ndarray:
    """Panels of several models row by row; each name in ``models`` has one look in all of them."""
    columns = max(min(3, len(panels)), math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    size = max(3.2 * columns, 6.5), 3.2 * rows + 0.25 * len(models) + 0.5
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    looks = dict(zip(models, itertools.cycle(LOOKS), strict=False))
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _label(axes, panel.title, panel.x, panel.y)
        axes.set(**UNIT_SQUARE)
        for line in panel.lines:
            style, colour = looks[line.name]
            label = f"{line.figure:.3f}"
            axes.plot(line.x, line.y, style, color=colour, linewidth=1.4, label=label)
        axes.legend(loc="lower left", fontsize="small", title=panel.figure, title_fontsize="small")
    handles = [Line2D([], [], color=colour, ls=style) for style, colour in looks.values()]
    names = [_short(name, TITLE_LETTERS) for name in looks]
    figure.legend(handles, names, loc="outside lower center", ncols=1, fontsize="medium")
    figure.suptitle(_short(title, TITLE_LETTERS))
    return as_picture(figure)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(_short(title, TITLE_LETTERS), fontsize="medium")
    axes.grid(alpha=0.3)


def _short(name: str, most: int) -> str:
    """Of one line, and without what matplotlib takes for a formula."""
    text = " ".join(name.split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("$", r"\$")


def as_picture(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # what the font lacks shows as an empty box, as in drawing.py
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # (H, W, 4) -> (H, W, 3)
