"""Runs side by side: a row for each, or for all that differ in the seed alone."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from yolo.apps.report.plots import DOTS_PER_INCH, as_picture
from yolo.apps.report.run import RunFolder
from yolo.config.save import yaml_text
from yolo.errors import UserError

FIGURES = ("AP", "AP50", "AP75", "mAP", "top1", "top5")
"""Of the best evaluation, shown where the runs have them, behind the figure that chose it."""
COSTS = ("step", "minutes", "images/s")
SEED, MISSING = "seed", "-"


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    name: str
    settings: dict[str, str]  # of its config by dotted key, as YAML text
    figures: dict[str, float]  # quality, then ``COSTS``; what is not known is NaN

    @classmethod
    def read(cls, folder: Path, scores: str | None = None) -> Run:
        """Its best evaluation, or the json ``scores`` of validation.py in its folder."""
        run = RunFolder(folder)
        if scores is None and run.best is None:
            raise UserError(f"{folder}: has no evaluation yet; leave the run out, or let it go on")
        best = 0 if run.best is None else run.best
        evaluated = {name: float(v[best]) for name, v in run.validation.figures.items()}
        quality = evaluated if scores is None else _read_scores(folder / scores)
        names = [name for name in dict.fromkeys((run.monitor, *FIGURES)) if name in quality]
        steps, speeds = run.training.steps, run.training.figures.get("images_per_second", [])
        images = np.diff(steps, prepend=0) * float(run.value("training.batch_size") or 1)  # (R,)
        seconds = images / np.maximum(speeds, 1e-9) if len(steps) else np.zeros(0)
        costs = {
            "step": float(run.validation.steps[best]) if len(run.validation) else np.nan,
            "minutes": float(np.nansum(seconds)) / 60,  # of training; evaluations come on top
            "images/s": float(np.nanmedian(speeds)) if len(steps) else np.nan,
        }
        settings = {key: yaml_text(setting.value) for key, setting in run.settings.items()}
        return cls(folder.resolve().name, settings, {n: quality[n] for n in names} | costs)


def _read_scores(path: Path) -> dict[str, float]:
    """The figures at the first confidence of a json that validation.py wrote."""
    try:
        stats = json.loads(path.read_bytes())["results"][0]["stats"]
        return {str(name): float(value) for name, value in stats.items()}
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); write it with --json") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the json of one checkpoint by validation.py") from error


@dataclass(frozen=True)
class Comparison:
    """The rows of a table: groups of runs that differ in the seed alone, in the order given."""

    groups: tuple[tuple[Run, ...], ...]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Comparison:
        groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
        for run in runs:
            rest = tuple(sorted((k, v) for k, v in run.settings.items() if k != SEED))
            groups.setdefault(rest, []).append(run)
        return cls(tuple(map(tuple, groups.values())))

    @property
    def names(self) -> list[str]:
        """Of each row; the number at the end of a run's name is that of its seed."""
        return [
            group[0].name
            if len(group) == 1
            else re.sub(r"([-_. ]?seed)?[-_. ]?\d+$", "", group[0].name)
            for group in self.groups
        ]

    @property
    def figure_names(self) -> list[str]:
        every = dict.fromkeys(n for group in self.groups for run in group for n in run.figures)
        return [*(name for name in every if name not in COSTS), *COSTS]

    @property
    def differing(self) -> list[str]:
        """The keys in which rows differ."""
        keys = dict.fromkeys(key for group in self.groups for key in group[0].settings)
        values = {key: {g[0].settings.get(key, MISSING) for g in self.groups} for key in keys}
        return [key for key in keys if key != SEED and len(values[key]) > 1]

    def values(self, name: str) -> list[np.ndarray]:
        """A figure of all runs of each row: float (runs,)."""
        return [np.array([run.figures.get(name, np.nan) for run in g]) for g in self.groups]

    def text(self) -> str:
        """The table for the terminal: mean ± standard deviation (n - 1) where a row has several."""
        names = self.figure_names
        columns = [["run", *self.names], ["runs", *(str(len(group)) for group in self.groups)]]
        columns += [[name, *(_cell(name, row) for row in self.values(name))] for name in names]
        widths = [max(map(len, column)) for column in columns]
        rows = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in zip(*columns, strict=True)
        ]
        changes = [self._changes(group) for group in self.groups]
        return "\n".join(
            f"{row}  {end}".rstrip() for row, end in zip(rows, ["", *changes], strict=True)
        )

    def _changes(self, group: Sequence[Run]) -> str:
        """In what a row differs from the first one."""
        first, own = self.groups[0][0].settings, group[0].settings
        here = [key for key in self.differing if own.get(key, MISSING) != first.get(key, MISSING)]
        return " ".join(f"{key}={own.get(key, MISSING)}" for key in here)

    def csv(self) -> str:
        """A line for each run, with every figure and every setting in which rows differ."""
        file, keys, names = io.StringIO(), self.differing, self.figure_names
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["group", "run", SEED, *names, *keys])
        for group_name, group in zip(self.names, self.groups, strict=True):
            for run in group:
                figures = [run.figures.get(name, np.nan) for name in names]
                cells = [run.settings.get(key, MISSING) for key in (SEED, *keys)]
                known = ["" if np.isnan(value) else value for value in figures]
                writer.writerow([group_name, run.name, cells[0], *known, *cells[1:]])
        return file.getvalue()

    def picture(self) -> np.ndarray:
        """The first figure of each row: a dot for each run, a line at their mean. (H, W, 3) RGB."""
        name, rows = self.figure_names[0], self.values(self.figure_names[0])
        size = (9, 1.2 + 0.35 * len(rows))
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        for place, values in enumerate(rows):
            axes.plot(values, [place] * len(values), "o", color="C0", alpha=0.7)
            mean, half = float(values.mean()), 0.3
            axes.plot([mean, mean], [place - half, place + half], color="black", linewidth=2)
        axes.set_yticks(range(len(rows)), [n.replace("$", r"\$") for n in self.names])
        axes.invert_yaxis()
        axes.set_xlabel(f"{name}: runs, and their mean")
        axes.grid(axis="x", alpha=0.3)
        return as_picture(figure)


def _cell(name: str, values: np.ndarray) -> str:
    """Mean ± standard deviation of (runs,) in the digits that suit the figure."""
    digits = {"step": 0, "minutes": 1, "images/s": 1}.get(name, 4)
    known = values[np.isfinite(values)]
    if not len(known):
        return MISSING
    spread = f" ± {known.std(ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{spread}"
