"""The page of a whole run: ``scripts/report.py logs/<name>``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from yolo.apps.report.charts import Line, line_chart
from yolo.apps.report.page import (
    Cell,
    Html,
    Section,
    details,
    escape,
    grid,
    link,
    note,
    page,
    picture,
    table,
    text,
    verdict,
    write_page,
)
from yolo.apps.report.run_folder import DEFAULT, Records, RunFolder, Setting
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

KEEPS_UP, SLOWS_DOWN = 0.05, 0.2
"""Shares of the time spent waiting for data: up to which one all is well, from which one not."""

MOST_PICTURES = 3
MOST_ROWS = 200
"""Of the table of evaluations: the last ones."""

OTHER_PICTURES = ("precision_recall.png",)
PICTURE_PX = 1500


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        folder: of the run.
        output: a file; None is ``report.html`` in the folder.

    Raises:
        UserError: the folder is not a run's, or the page cannot be written.
    """
    path = output or folder / FILE_NAME
    write_page(path, report_page(RunFolder.read(folder), beside=path.parent))
    return path


def report_page(run: RunFolder, *, beside: Path | None = None) -> str:
    """The whole page.

    Args:
        run: as its files tell it.
        beside: the folder that the page will lie in, for links to its neighbours.
    """
    best = _best_row(run)
    task = str(run.setting("task") or "")
    parts = [task, run.base, _progress(run)]
    subtitle = " · ".join(part for part in parts if part)
    sections = [
        Section("Result", _result(run, best, beside)),
        Section("Curves", _curves(run, best)),
        Section("Speed and data", _speed(run)),
        Section("Pictures", _pictures(run, best)),
        Section("Config", _config(run)),
    ]
    return page(f"Run {run.path.resolve().name}", subtitle, sections)


def _progress(run: RunFolder) -> str:
    steps = run.setting("training.steps")
    done = f"step {run.last_step:,}" + (f" of {steps:,}" if isinstance(steps, int) else "")
    when = f", last report {run.last_report:%Y-%m-%d %H:%M}" if run.last_report else ""
    return done + when


def _monitor(run: RunFolder) -> str:
    """The figure that decides which checkpoint is the best one."""
    named = run.setting("evaluation.monitor")
    if named is not None:
        return str(named)
    if run.setting("task") == "classify":
        return "top1"
    return DEFAULT_MONITORS.get(str(run.setting("evaluation.metric")), "AP50")


def _best_row(run: RunFolder) -> int | None:
    """The number of the best evaluation, of equals the earlier; None without one."""
    figures = run.validation.figures.get(_monitor(run))
    if figures is None or not np.isfinite(figures).any():
        return None
    return int(np.nanargmax(figures))


def _result(run: RunFolder, best: int | None, beside: Path | None) -> list[Html]:
    blocks = []
    records, monitor = run.validation, _monitor(run)
    if not len(records):
        blocks.append(text("There has been no evaluation yet."))
    elif best is None:
        blocks.append(text(f"No evaluation has the figure {monitor} that the run is judged by."))
    else:
        value, step = records.figures[monitor][best], int(records.steps[best])
        blocks.append(text(f"The best {monitor} is {value:.4f}, at step {step:,}."))
    if len(records):
        blocks += _figures(records, best)
    blocks += _accidents(run.training)
    analysis = run.path / "analysis.html"
    if beside is not None and beside.resolve() == run.path.resolve() and analysis.is_file():
        blocks.append(link(analysis.name, "The error analysis of the checkpoint"))
    return blocks


def _figures(records: Records, best: int | None) -> list[Html]:
    """The best evaluation beside the last one, and all of them on demand."""
    last = len(records) - 1
    shown = [best, last] if best is not None and best != last else [last]
    heads = [
        ("best" if row == best else "last") + f", step {records.steps[row]:,}" for row in shown
    ]
    names = [name for name in records.figures if not name.startswith(("loss/", "accuracy/"))]
    rows: list[list[Cell]] = [
        [name, *(_figure(name, records.figures[name][row]) for row in shown)] for name in names
    ]
    halves = [rows[: -(-len(rows) // 2)], rows[-(-len(rows) // 2) :]]
    tables = [table(("figure", *heads), half) for half in halves if half]
    every: list[list[Cell]] = [
        [int(step), *(_figure(name, records.figures[name][row]) for name in names)]
        for row, step in enumerate(records.steps)
    ][-MOST_ROWS:]
    marked = -1 if best is None else best - max(0, len(records) - MOST_ROWS)
    listed = details(
        f"All evaluations ({len(records):,})", [table(("step", *names), every, marked=marked)]
    )
    return [grid(tables, least_px=340), listed]


def _figure(name: str, value: float) -> Cell:
    if not np.isfinite(value) or (value == -1 and name != "loss"):  # -1: nothing to find
        return None
    return int(value) if name == "found_boxes" else float(value)


def _accidents(training: Records) -> list[Html]:
    """Steps that taught nothing."""
    skipped = training.figures.get("skipped_steps", np.zeros(0))
    count = int(np.nansum(skipped[-1:]))  # counted from the start
    if not count:
        return []
    return [verdict("fair", f"{count:,} steps were skipped: their gradients were not finite.")]


def _curves(run: RunFolder, best: int | None) -> list[Html]:
    training, validation = run.training, run.validation
    marks = [] if best is None else [float(validation.steps[best])]
    phases = {"training": training, "validation": validation}
    losses = {
        phase: {"loss": r.figures["loss"]} for phase, r in phases.items() if "loss" in r.figures
    }
    charts = [_phases("Loss", phases, losses, marks, may_be_log=True)]
    for phase, records in phases.items():
        terms = {phase: records.under("loss")}
        if len(terms[phase]) > 1:
            title = f"Terms of the loss in {phase}"
            charts.append(_phases(title, phases, terms, marks, may_be_log=True))
    for title, pattern in CHARTS.items():
        found = {n: v for n, v in validation.figures.items() if re.fullmatch(pattern, n)}
        charts.append(_phases(title, phases, {"validation": _without_nothing(found)}, marks))
    accuracies = {phase: records.under("accuracy") for phase, records in phases.items()}
    if not any(re.fullmatch(CHARTS["Right answers"], name) for name in accuracies["training"]):
        charts.append(_phases("Right answers of the grid", phases, accuracies, marks))
    else:
        training_only = {"training": accuracies["training"]}
        charts.append(_phases("Right answers in training", phases, training_only, marks))
    rates = {n: v for n, v in training.figures.items() if "learning_rate" in n}
    charts.append(_phases("Learning rate", phases, {"training": rates}, marks))
    drawn = [chart for chart in charts if chart]
    if not drawn:
        return [text("There has been no report yet.")]
    about = "Solid: training; dashed: validation. The dotted vertical line is the best evaluation."
    return [grid(drawn, least_px=480), note(about)]


def _without_nothing(figures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the figures that are -1 all along: nothing of the kind is in the data."""
    masked = {name: np.where(values == -1, np.nan, values) for name, values in figures.items()}
    return {name: values for name, values in masked.items() if np.isfinite(values).any()}


def _phases(
    title: str,
    phases: Mapping[str, Records],
    figures: Mapping[str, Mapping[str, np.ndarray]],
    marks: Sequence[float],
    *,
    may_be_log: bool = False,
) -> Html:
    """A chart of the figures of one phase or both; a name has one colour; "" without any."""
    names = list(dict.fromkeys(name for group in figures.values() for name in group))
    several = sum(bool(group) for group in figures.values()) > 1
    lines = [
        Line(
            name=f"{name}, {phase}" if several else name,
            x=phases[phase].steps,
            y=values,
            colour=names.index(name),
            style="-" if phase == "training" else "--",
            dots=phase == "validation" and len(values) <= 40,
        )
        for phase, group in figures.items()
        for name, values in group.items()
    ]
    return line_chart(title, lines, marks=marks, may_be_log=may_be_log) if lines else Html("")


def _speed(run: RunFolder) -> list[Html]:
    """The verdict on the data, and how fast it went."""
    shares = run.training.figures.get("data_wait_share", np.zeros(0))
    known = shares[np.isfinite(shares)]
    if not len(known):
        return [text("There has been no report of the training yet.")]
    settled = known[1:] if len(known) > 1 else known  # the first one waits for the workers to start
    charts = [
        line_chart(
            "Share of the time spent waiting for data",
            [Line(name="waiting for data", x=run.training.steps, y=shares, colour=1)],
            y_limits=(0.0, max(0.1, min(1.0, 1.1 * float(known.max())))),
        )
    ]
    speed = run.training.figures.get("images_per_second", np.zeros(0))
    if np.isfinite(speed).any():
        line = Line(name="images per second in training", x=run.training.steps, y=speed, colour=2)
        charts.append(line_chart("Speed", [line]))
    middle = f"The training took {np.nanmedian(speed):,.1f} images per second (median)."
    return [
        _data_wait(float(settled.mean()), float(settled.max())),
        *([text(middle)] if len(charts) > 1 else []),
        grid(charts, least_px=480),
    ]


def _data_wait(mean: float, most: float) -> Html:
    waited = f"The training waited for data {mean:.1%} of the time (at most {most:.1%}): "
    if mean <= KEEPS_UP:
        return verdict("good", waited + "the data keeps up with the network.")
    if mean <= SLOWS_DOWN:
        advice = "more data.workers or a cheaper data.augment would help a little."
        return verdict("fair", waited + advice)
    advice = (
        "the data is the bottleneck; raise data.workers, choose a cheaper data.augment or smaller "
        "images, or put the data on a faster disk."
    )
    return verdict("bad", waited + advice)


def _pictures(run: RunFolder, best: int | None) -> list[Html]:
    """The last evaluation's, the best one's and the first one's, and what other tools drew."""
    sheets = run.pictures()
    steps = sorted(sheets)
    wanted = steps[-1:]
    if best is not None and int(run.validation.steps[best]) in sheets:
        wanted.append(int(run.validation.steps[best]))
    wanted = sorted({*wanted, *steps[:1]}, reverse=True)[:MOST_PICTURES]
    shown = {f"step {step:,}: truth beside prediction": sheets[step] for step in wanted}
    shown |= {name: run.path / name for name in OTHER_PICTURES if (run.path / name).is_file()}
    blocks = []
    for number, (caption, path) in enumerate(shown.items()):
        block = _drawn(path, caption)
        blocks.append(block if number == 0 else details(caption, [block]))
    return blocks or [text("The run has drawn no picture.")]


def _drawn(path: Path, caption: str) -> Html:
    """A run in progress may be writing a picture, and a broken one spoils no page."""
    try:
        return picture(decode(path), caption=caption, longest_px=PICTURE_PX, quality=78)
    except UserError as error:
        return note(str(error))


def _config(run: RunFolder) -> list[Html]:
    if not run.settings:
        return [text("The run has no config.yaml.")]
    chosen = [s for s in run.settings if s.origin and s.origin != DEFAULT]
    lists = _items_of_lists(run.settings)
    rows: list[list[Cell]] = [[_code(s.key), _code(_value(s, lists)), s.origin] for s in chosen]
    every: list[list[Cell]] = [[_code(s.line), s.origin] for s in run.settings]
    return [
        table(("key", "value", "from"), rows, caption="What is not a default"),
        details("The whole config", [table(("config.yaml", "from"), every)]),
    ]


def _items_of_lists(settings: Sequence[Setting]) -> dict[str, list[str]]:
    items: dict[str, list[str]] = {}
    for setting in settings:
        if setting.line.lstrip().startswith("- "):
            items.setdefault(setting.key, []).append(setting.line.strip())
    return items


def _value(setting: Setting, items: Mapping[str, Sequence[str]]) -> str:
    value = setting.line.strip().partition(":")[2].strip()
    return value or "\n".join(items.get(setting.key, ()))


def _code(data: str) -> Html:
    return Html(f"<code>{escape(data)}</code>")
