"""What a case is given and what it returns: settings, figures and their goals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        rounds: how often everything that is compared takes its turn; the first one is dropped.
        device: of the networks and the loss; the other cases run on the CPU.
        data: a folder with ``annotations/instances_train2017.json`` and ``train2017/``.
        slow: also measure what is only there for comparison and takes minutes.
        tiny: sizes that only show that a case runs.
        kernels: file for the table of the GPU's kernels; None writes none.
    """

    rounds: int
    device: torch.device
    data: Path
    slow: bool = False
    tiny: bool = False
    kernels: Path | None = None


class Goal(NamedTuple):
    """A bound on a figure."""

    kind: Literal["at least", "at most"]
    bound: float

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"

    def met_by(self, value: float) -> bool:
        return value >= self.bound if self.kind == "at least" else value <= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that was measured."""

    name: str
    value: float
    unit: str
    goal: Goal | None = None

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or nothing where there is no goal."""
        if self.goal is None:
            return ""
        return "met" if self.goal.met_by(self.value) else "missed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to measure.

    Attributes:
        name: on the command line.
        measure: yields figures as they come.
        lacks: what this machine lacks to run it, as one sentence; None if nothing.
    """

    name: str
    measure: Callable[[Settings], Iterator[Figure]]
    lacks: Callable[[Settings], str | None] = lambda settings: None


class Result(NamedTuple):
    """A figure and the case that it belongs to."""

    case: str
    figure: Figure


def line(result: Result) -> str:
    """A result as a line of the terminal."""
    figure = result.figure
    goal = f"   (goal: {figure.goal}, {figure.verdict})" if figure.goal else ""
    return f"{result.case:<19}{figure.name:<62}{show(figure.value):>8} {figure.unit}{goal}"


def markdown(results: Sequence[Result], *, command: str, date: str, machine: Sequence[str]) -> str:
    """The results as a page."""
    rows = [
        (case, f.name, f"{show(f.value)} {f.unit}", str(f.goal or ""), f.verdict)
        for case, f in results
    ]
    table = [("case", "figure", "value", "goal", ""), ("---", "---", "---:", "---", "---"), *rows]
    return "\n".join(
        [
            "# Results",
            "",
            f"Measured on {date} with `{command}`. What each case does stands in "
            "[README.md](README.md).",
            "",
            *(f"- {text}" for text in machine),
            "",
            *("| " + " | ".join(row) + " |" for row in table),
            "",
        ]
    )


def show(value: float) -> str:
    """Three digits that count, in full."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
