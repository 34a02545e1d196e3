"""The page of a whole run, done, going on or broken off: ``scripts/report.py logs/<name>``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from yolo.apps.report.page import Cell, line_chart, picture, render, write_page
from yolo.apps.report.plots import FILE_NAME as CURVES_NAME
from yolo.apps.report.plots import Line
from yolo.config import ConfigError
from yolo.config.save import Setting, read_settings, yaml_text
from yolo.data.images import decode
from yolo.errors import UserError
from yolo.factory.evaluator import DEFAULT_MONITORS

METRICS, CONFIG, PICTURES = "metrics.jsonl", "config.yaml", "pictures"

CHARTS = {
    "Average precision": r"m?AP(50|75|_11|_fixed)?",
    "Average precision by size": r"AP[sml]",
    "Average recall": r"AR(\d+|[sml])",
    "Right answers": r"top\d+",
}
"""Title -> names of the validation's figures, which lie between 0 and 1."""

Figures = Mapping[str, Mapping[str, np.ndarray]]  # phase -> name -> (R,)

KEEPS_UP, SLOWS_DOWN = 0.05, 0.2  # shares of time spent waiting for data: good up to, bad above
LARGEST = 1e18  # of steps and figures: more is damage
PICTURE_PX = 1500
MOST_ROWS = 200  # of the table of evaluations: the last ones


class Records:
    """The reports of one phase, in the order of their steps."""

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        ordered = sorted(records, key=lambda record: record["step"])
        names = dict.fromkeys(n for one in ordered for n in one if n not in ("phase", "step"))
        self.steps = np.array([record["step"] for record in ordered], dtype=np.int64)  # (R,)
        self.figures = {  # float (R,), NaN where a report lacks it
            name: np.array([_number(record.get(name)) for record in ordered]) for name in names
        }

    def __len__(self) -> int:
        return len(self.steps)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The figures of a group by the rest of their name."""
        start = f"{prefix}/"
        return {n.removeprefix(start): v for n, v in self.figures.items() if n.startswith(start)}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < LARGEST else math.nan


class RunFolder:
    """A run as its files describe it; what is not there yet is empty."""

    def __init__(self, path: Path) -> None:
        self.path, metrics, config = path, path / METRICS, path / CONFIG
        if not (metrics.is_file() or config.is_file()):
            what = f"it has neither {CONFIG} nor {METRICS}"
            raise UserError(f"{path}: not the folder of a run: {what}")
        base = re.match("# Resolved from (.*?): ", _read(config))
        self.base = base[1] if base else ""  # the YAML that the run was started with
        exists = metrics.is_file()
        self.last_report = datetime.fromtimestamp(metrics.stat().st_mtime) if exists else None
        records = list(_records(_read(metrics)))
        self.training, self.validation = (
            Records(record for record in records if record.get("phase") == phase)
            for phase in ("training", "validation")
        )
        self.settings: Mapping[str, Setting] = {}  # of the config by dotted key
        with suppress(ConfigError):
            self.settings = read_settings(config)

    def value(self, key: str) -> Any:
        """Of a dotted key of the config; None where there is none."""
        return self.settings[key].value if key in self.settings else None

    @property
    def last_step(self) -> int:
        return int(max([0, *self.training.steps[-1:], *self.validation.steps[-1:]]))

    @cached_property
    def monitor(self) -> str:
        """The figure that decides which checkpoint is the best one."""
        default = DEFAULT_MONITORS.get(str(self.value("evaluation.metric")), "AP50")
        default = "top1" if self.value("task") == "classify" else default
        return str(self.value("evaluation.monitor") or default)

    @cached_property
    def best(self) -> int | None:
        """The number of the best evaluation, of equals the earlier; None without one."""
        figures = self.validation.figures.get(self.monitor, np.zeros(0))
        known = np.where(figures == -1, np.nan, figures)  # -1: nothing to find
        return int(np.nanargmax(known)) if np.isfinite(known).any() else None


def newest_run(directory: Path) -> Path:
    """The run that reported last."""
    found = [file for name in (METRICS, CONFIG) for file in directory.glob(f"*/{name}")]
    if not found:
        raise UserError(f"{directory}: holds no run yet; train one with `python main.py`")
    return max(found, key=lambda file: file.stat().st_mtime).parent


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace") if path.is_file() else ""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _records(lines: str) -> Iterator[dict[str, Any]]:
    """A run in progress, or a crash, may leave half a line."""
    for line in lines.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = record.get("step") if isinstance(record, dict) else None
        if isinstance(step, int) and abs(step) < LARGEST:
            yield record


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run; without ``output`` it is ``report.html`` in its folder."""
    path = output or folder / "report.html"
    run = RunFolder(folder)
    analysis = run.path / "analysis.html"
    is_beside = path.parent.resolve() == run.path.resolve()
    page = render(
        "run.html",
        run=run,
        evaluations=_evaluations(run.validation, run.best),
        skipped=int(np.nansum(run.training.figures.get("skipped_steps", np.zeros(0))[-1:])),
        analysis=analysis.name if is_beside and analysis.is_file() else "",
        charts=_charts(run),
        waiting=_waiting(run.training),
        pictures=list(_pictures(run)),
        settings=[[key, yaml_text(s.value), s.origin] for key, s in run.settings.items()],
    )
    write_page(path, page, is_named=path == output)
    return path


def _evaluations(records: Records, best: int | None) -> dict[str, Any]:
    """The best evaluation beside the last one in two tables, and all of them."""
    if not len(records):
        return {}
    last = len(records) - 1
    shown = [best, last] if best is not None and best != last else [last]
    columns = {
        name: [_figure(name, value) for value in values.tolist()]
        for name, values in records.figures.items()
        if not name.startswith(("loss/", "accuracy/"))
    }
    rows = [[name, *(column[i] for i in shown)] for name, column in columns.items()]
    heads = [f"{'best' if row == best else 'last'}, step {records.steps[row]:,}" for row in shown]
    every = list(zip(records.steps.tolist(), *columns.values(), strict=True))
    return {
        "head": ["figure", *heads],
        "rows": rows,
        "names": list(columns),
        "all": every[-MOST_ROWS:],
        "marked": None if best is None else best - max(0, len(every) - MOST_ROWS),
    }


def _figure(name: str, value: float) -> Cell:
    if not math.isfinite(value) or (value == -1 and name != "loss"):  # -1: nothing to find
        return None
    return int(value) if name == "found_boxes" else value


def _charts(run: RunFolder) -> list[Markup]:
    """The curves of training and validation that have something to show."""
    phases = {"training": run.training, "validation": run.validation}
    losses = {p: {"loss": r.figures["loss"]} for p, r in phases.items() if "loss" in r.figures}
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
    of_images = any(re.fullmatch(CHARTS["Right answers"], name) for name in accuracies["training"])
    wanted[f"Right answers {'in training' if of_images else 'of the grid'}"] = accuracies
    more = {"Learning rate": "learning_rate", "Norm of the gradient": "gradient_norm"}
    for title, part in more.items():
        known = {name: v for name, v in run.training.figures.items() if part in name}
        wanted[title] = {"training": known}
    marks = [] if run.best is None else [float(run.validation.steps[run.best])]
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


def _pictures(run: RunFolder) -> Iterator[tuple[str, Markup]]:
    """The last evaluation's, the best one's and the first one's, and what other tools drew."""
    found = sorted((run.path / PICTURES).glob("step_*.jpg"))
    named = {path.stem.removeprefix("step_"): path for path in found}
    sheets = {int(step): path for step, path in named.items() if step.isdecimal()}
    wanted = [max(sheets, default=None), min(sheets, default=None)]
    if run.best is not None:
        wanted.append(int(run.validation.steps[run.best]))
    shown = {
        f"step {step:,}: truth beside prediction": sheets[step]
        for step in sorted(sheets.keys() & set(wanted), reverse=True)
    }
    shown |= {path.name: path for path in [run.path / CURVES_NAME] if path.is_file()}
    for caption, path in shown.items():
        try:
            yield caption, picture(decode(path), caption=caption, longest_px=PICTURE_PX, quality=78)
        except UserError as error:  # a run in progress may be writing it
            yield caption, Markup('<p class="note">{}</p>').format(error)
