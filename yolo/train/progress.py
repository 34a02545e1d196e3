"""How a training is to go, how far it is, and what happened since the last report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from yolo.records import Batch
from yolo.train.distributed import Ranks
from yolo.train.evaluation import add_terms


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rhythm of a training, counted in optimizer steps.

    Attributes:
        patience: stop after so many evaluations without a better figure; None for never.
        target_figure: stop once the monitored figure reaches it; None for never.
        max_skipped: fail after so many steps in a row that were not finite; None for never.
    """

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None
    target_figure: float | None = None
    max_skipped: int | None = None


@dataclass
class Progress:
    """What a checkpoint carries beside the tensors.

    Attributes:
        step: optimizer steps done.
        evaluated_step: the step of the last complete evaluation.
        best_figure: the best monitored figure so far; None before the first evaluation.
        best_step: its step; of equals, the earlier.
        evaluations_since_best: for ``patience``.
        skipped_steps: steps whose loss or gradients were not finite.
        scaler_backoffs: steps that the fp16 scaler gave up to find a smaller scale.
        skipped_in_a_row: steps skipped since the last finite one; older checkpoints lack it.
        figures: of the last evaluation, the finite ones.
    """

    step: int = 0
    evaluated_step: int = 0
    best_figure: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped_steps: int = 0
    scaler_backoffs: int = 0
    skipped_in_a_row: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def is_best(self) -> bool:
        """Whether the model as it stands is the best evaluated one."""
        return 0 < self.step == self.evaluated_step == self.best_step

    def note(self, figure: float, figures: dict[str, float]) -> None:
        """Take in an evaluation of the model as it stands; NaN is never the best."""
        self.evaluated_step = self.step
        self.figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        if figure > (-math.inf if self.best_figure is None else self.best_figure):
            self.best_figure, self.best_step = figure, self.step
            self.evaluations_since_best = 0
        else:
            self.evaluations_since_best += 1


class Window:
    """Adds up the steps between two reports; nothing waits for the device before ``figures``."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0
        self._steps = 0
        self._terms: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def fetch(self, stream: Iterator[Batch], count: int) -> Iterator[Batch]:
        """The next ``count`` batches; the time until each is there counts as waiting."""
        for _ in range(count):
            start = time.perf_counter()
            batch = next(stream)
            self._waited += time.perf_counter() - start
            yield batch

    def add(self, terms: dict[str, Tensor], counts: dict[str, Tensor], images: int) -> None:
        """Count a step, of which only the images (of all ranks) if it was skipped.

        Loss terms are scalars, none for a skipped step; counts are hits and attempts, (2,) each.
        """
        self._images += images
        if terms:
            add_terms(self._terms, terms)
            add_terms(self._counts, counts)
            self._steps += 1

    def figures(self, ranks: Ranks) -> dict[str, float]:
        """Mean loss terms over the steps, summed over the ranks, the accuracy and the speed.

        An accuracy without a single attempt on any rank is left out.
        """
        terms, counts = self._summed(ranks) if self._steps else ({}, {})
        seconds = time.perf_counter() - self._start
        return {
            "loss": sum(terms.values()) if terms else math.nan,
            **{f"loss/{name}": value for name, value in terms.items()},
            **{f"accuracy/{name}": hits / of for name, (hits, of) in counts.items() if of},
            "images_per_second": self._images / seconds,
            "data_wait_share": self._waited / seconds,
        }

    def _summed(self, ranks: Ranks) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Loss terms per step and counts, over all ranks, in one exchange."""
        flat = [*self._terms.values(), *self._counts.values()]
        values = ranks.sum(torch.cat([value.double().flatten() for value in flat])).tolist()
        terms, pairs = values[: len(self._terms)], values[len(self._terms) :]
        return (
            {name: term / self._steps for name, term in zip(self._terms, terms, strict=True)},
            {name: pairs[2 * i : 2 * i + 2] for i, name in enumerate(self._counts)},
        )
