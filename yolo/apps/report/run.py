"""The page of a whole run: ``scripts/report.py logs/<name>``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from yolo.apps.report.page import Cell, line_chart, picture, render, write_page
from yolo.apps.report.plots import FILE_NAME as CURVES_NAME
from yolo.apps.report.plots import Line
from yolo.apps.report.run_folder import Records, RunFolder
from yolo.config.save import yaml_text
from yolo.data.images import decode
from yolo.errors import UserError
from yolo.factory.evaluator import DEFAULT_MONITORS

FILE_NAME = "report.html"

CHARTS = {
    "Average precision": r"m?AP(50|75|_11|_fixed)?",
    "Average precision by size": r"AP[sml]",
    "Average recall": r"AR(\d+|[sml])",
    "Right answers": r"top\d+",
}
"""Title -> names of the validation's figures, which lie between 0 and 1."""

Figures = Mapping[str, Mapping[str, np.ndarray]]
"""Phase -> name -> (R,)."""

KEEPS_UP, SLOWS_DOWN = 0.05, 0.2  # shares of waiting for data: all is well up to, not from
MOST_PICTURES = 3
MOST_ROWS = 200  # of the table of evaluations: the last ones
PICTURE_PX = 1500


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run; without ``output`` it is ``report.html`` in its folder."""
    path = output or folder / FILE_NAME
    run = RunFolder.read(folder)
    best = _best_row(run)
    analysis = run.path / "analysis.html"
    is_beside = path.parent.resolve() == run.path.resolve()
    page = render(
        "run.html",
        run=run,
        monitor=_monitor(run),
        best=best,
        evaluations=_evaluations(run.validation, best),
        skipped=int(np.nansum(run.training.figures.get("skipped_steps", np.zeros(0))[-1:])),
        analysis=analysis.name if is_beside and analysis.is_file() else "",
        charts=_charts(run, best),
        waiting=_waiting(run.training),
        pictures=list(_pictures(run, best)),
        settings=[[key, yaml_text(s.value), s.origin] for key, s in run.settings.items()],
    )
    write_page(path, page)
    return path


def _monitor(run: RunFolder) -> str:
    """The figure that decides which checkpoint is the best one."""
    named = run.value("evaluation.monitor")
    if named is not None:
        return str(named)
    if run.value("task") == "classify":
        return "top1"
    return DEFAULT_MONITORS.get(str(run.value("evaluation.metric")), "AP50")


def _best_row(run: RunFolder) -> int | None:
    """The number of the best evaluation, of equals the earlier; None without one."""
    figures = run.validation.figures.get(_monitor(run))
    if figures is None or not np.isfinite(figures).any():
        return None
    return int(np.nanargmax(figures))


def _evaluations(records: Records, best: int | None) -> dict[str, Any]:
    """The best evaluation beside the last one in two tables, and all of them."""
    if not len(records):
        return {}
    last = len(records) - 1
    shown = [best, last] if best is not None and best != last else [last]
    names = [name for name in records.figures if not name.startswith(("loss/", "accuracy/"))]
    table = [
        [_figure(name, records.figures[name][row]) for name in names] for row in range(last + 1)
    ]
    rows = [[name, *(table[row][i] for row in shown)] for i, name in enumerate(names)]
    half = -(-len(rows) // 2)
    heads = [f"{'best' if row == best else 'last'}, step {records.steps[row]:,}" for row in shown]
    every = [[step, *row] for step, row in zip(records.steps.tolist(), table, strict=True)]
    return {
        "head": ["figure", *heads],
        "halves": [part for part in (rows[:half], rows[half:]) if part],
        "names": names,
        "all": every[-MOST_ROWS:],
        "marked": None if best is None else best - max(0, len(every) - MOST_ROWS),
    }


def _figure(name: str, value: float) -> Cell:
    if not np.isfinite(value) or (value == -1 and name != "loss"):  # -1: nothing to find
        return None
    return int(value) if name == "found_boxes" else float(value)


def _charts(run: RunFolder, best: int | None) -> list[Markup]:
    """The curves of training and validation that have something to show."""
    phases = {"training": run.training, "validation": run.validation}
    losses = {
        name: {"loss": r.figures["loss"]} for name, r in phases.items() if "loss" in r.figures
    }
    wanted: dict[str, Figures] = {"Loss": losses}
    for phase, records in phases.items():
        if len(terms := records.under("loss")) > 1:
            wanted[f"Terms of the loss in {phase}"] = {phase: terms}
    with_wide_span = set(wanted)
    for title, pattern in CHARTS.items():
        known = {
            name: np.where(values == -1, np.nan, values)
            for name, values in run.validation.figures.items()
            # what is -1 all along is not in the data
            if re.fullmatch(pattern, name) and (np.isfinite(values) & (values != -1)).any()
        }
        wanted[title] = {"validation": known}
    accuracies = {phase: records.under("accuracy") for phase, records in phases.items()}
    if any(re.fullmatch(CHARTS["Right answers"], name) for name in accuracies["training"]):
        wanted["Right answers in training"] = {"training": accuracies["training"]}
    else:
        wanted["Right answers of the grid"] = accuracies
    rates = {n: v for n, v in run.training.figures.items() if "learning_rate" in n}
    wanted["Learning rate"] = {"training": rates}
    marks = [] if best is None else [float(run.validation.steps[best])]
    return [
        line_chart(title, lines, marks=marks, may_be_log=title in with_wide_span)
        for title, figures in wanted.items()
        if (lines := _lines(phases, figures))
    ]


def _lines(phases: Mapping[str, Records], figures: Figures) -> list[Line]:
    """Figures of one phase or both; a name has one colour."""
    names = list(dict.fromkeys(name for group in figures.values() for name in group))
    several = sum(bool(group) for group in figures.values()) > 1
    return [
        Line(
            name=f"{name}, {phase}" if several else name,
            x=phases[phase].steps,
            y=values,
            colour=names.index(name),
            style="-" if phase == "training" else "--",
            marker="o" if phase == "validation" and len(values) <= 40 else "",
        )
        for phase, group in figures.items()
        for name, values in group.items()
    ]


def _waiting(training: Records) -> dict[str, Any]:
    """How long training waited for data and how fast it went; empty without a report."""
    shares = training.figures.get("data_wait_share", np.zeros(0))
    known = shares[np.isfinite(shares)]
    if not len(known):
        return {}
    settled = known[1:] if len(known) > 1 else known  # the first one waits for the workers to start
    mean, limit = float(settled.mean()), max(0.1, min(1.0, 1.1 * float(known.max())))
    line = Line(name="waiting for data", x=training.steps, y=shares, colour=1)
    title = "Share of the time spent waiting for data"
    charts, speed = [line_chart(title, [line], y_limits=(0.0, limit))], None
    speeds = training.figures.get("images_per_second", np.zeros(0))
    if np.isfinite(speeds).any():
        name = "images per second in training"
        charts.append(line_chart("Speed", [Line(name=name, x=training.steps, y=speeds, colour=2)]))
        speed = float(np.nanmedian(speeds))
    kind = "good" if mean <= KEEPS_UP else "fair" if mean <= SLOWS_DOWN else "bad"
    most = float(settled.max())
    return {"kind": kind, "mean": mean, "most": most, "speed": speed, "charts": charts}


def _pictures(run: RunFolder, best: int | None) -> Iterator[tuple[str, Markup]]:
    """The last evaluation's, the best one's and the first one's, and what other tools drew."""
    sheets = run.pictures()
    steps = sorted(sheets)
    wanted = {*steps[-1:], *steps[:1]}
    if best is not None:
        wanted |= {int(run.validation.steps[best])} & set(steps)
    shown = {
        f"step {step:,}: truth beside prediction": sheets[step]
        for step in sorted(wanted, reverse=True)[:MOST_PICTURES]
    }
    shown |= {path.name: path for path in [run.path / CURVES_NAME] if path.is_file()}
    for caption, path in shown.items():
        try:
            yield caption, picture(decode(path), caption=caption, longest_px=PICTURE_PX, quality=78)
        except UserError as error:  # a run in progress may be writing it
            yield caption, Markup('<p class="note">{}</p>').format(error)
