"""What an evaluation gives back, whatever the task, and the sums that its figures come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from yolo.records import Detections, Sample


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one evaluation.

    Attributes:
        figure: the monitored one, larger is better.
        figures: all of them by name, the loss terms too; the same whenever the model is.
        images_per_second: how fast it went.
        text: a table for people.
        pictures: uint8 (H, W, 3), RGB.
    """

    figure: float
    figures: dict[str, float]
    images_per_second: float
    text: str
    pictures: Sequence[np.ndarray] = ()


class Evaluator(Protocol):
    """Scores a model on data of its own."""

    @property
    def monitor(self) -> str:
        """The name of the monitored figure."""

    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool]) -> Evaluation | None:
        """Score the model, on all ranks together; None if it was interrupted on any of them."""


class Pictures(Protocol):
    """Draws what an evaluation shows, and writes it."""

    def draw(self, truth: Sample, found: Detections, class_names: Sequence[str]) -> np.ndarray:
        """An image with its truth and what was found in it, boxes in its pixels: (H, W, 3)."""

    def save(self, path: Path, pictures: Sequence[np.ndarray]) -> None:
        """Write all of an evaluation to one file."""


Number = TypeVar("Number", int, float, np.ndarray, Tensor)


def add_terms(totals: dict[str, Number], terms: Mapping[str, Number]) -> None:
    """Add loss terms, or counts, to the totals of the same names."""
    for name, term in terms.items():
        totals[name] = totals[name] + term if name in totals else term


def sum_by_name(shares: Iterable[Mapping[str, Number]]) -> dict[str, Number]:
    """Add up what the ranks have counted; a rank without images has no names."""
    totals: dict[str, Number] = {}
    for share in shares:
        add_terms(totals, share)
    return totals
