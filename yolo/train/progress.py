"""How a training is to go, how far it is, and the figures of its steps and evaluations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from yolo.records import Batch, Detections, Sample, Targets
from yolo.train.distributed import Ranks
from yolo.train.interruption import Interruption

Number = TypeVar("Number", int, float, np.ndarray, Tensor)

Count = Annotated[int, Field(ge=0, le=2**53)]
"""What a file that is read has to have; nothing checks it elsewhere."""

Accuracy = Callable[[Any, Targets], dict[str, Tensor]]
"""``accuracy(outputs, targets) -> {name: (hits, of)}``, summed over the images of the batch."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rhythm of a training, counted in optimizer steps; what is None never ends it."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None  # evaluations without a better figure
    target_figure: float | None = None  # the monitored figure that is to be reached
    max_skipped: int | None = None  # steps in a row that were not finite


@dataclass
class Progress:
    """What a checkpoint carries beside the tensors."""

    step: Count = 0  # optimizer steps done
    evaluated_step: Count = 0  # of the last complete evaluation
    best_figure: float | None = None
    best_step: Count = 0  # of equal figures the earlier
    evaluations_since_best: Count = 0
    skipped_steps: Count = 0  # whose loss or gradients were not finite
    scaler_backoffs: Count = 0  # steps that the fp16 scaler gave up to find a smaller scale
    skipped_in_a_row: Count = 0  # older checkpoints lack it
    figures: dict[str, float] = field(default_factory=dict)  # finite ones, last evaluation

    @property
    def is_best(self) -> bool:
        """Whether the model as it stands is the best evaluated one."""
        return 0 < self.step == self.evaluated_step == self.best_step

    def __post_init__(self) -> None:
        if self.best_figure == -1:  # older checkpoints: there was no truth
            self.best_figure = None

    def note(self, figure: float | None, figures: dict[str, float]) -> None:
        """Take in an evaluation of the model as it stands; NaN is never the best.

        Without a truth the newest model is the best one, as long as no figure is known.
        """
        self.evaluated_step = self.step
        self.figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        if figure is None:
            if self.best_figure is None:
                self.best_step = self.step
            return
        self.evaluations_since_best += 1
        if figure > (-math.inf if self.best_figure is None else self.best_figure):
            self.best_figure, self.best_step = figure, self.step
            self.evaluations_since_best = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one evaluation, whatever the task."""

    figure: float | None  # the monitored one, larger is better; None without a truth to find
    figures: dict[str, float]  # all, the loss terms too; the same names for the same model
    images_per_second: float
    text: str  # a table for people
    headline: str  # the monitored figure and a few more, in one line
    pictures: Sequence[np.ndarray] = ()  # uint8 (H, W, 3), RGB


class Evaluator(Protocol):
    """Scores a model on data of its own."""

    @property
    def monitor(self) -> str:
        """The name of the monitored figure."""

    def evaluate(self, model: nn.Module, interruption: Interruption) -> Evaluation | None:
        """Score the model, on all ranks together; None if it was interrupted on any of them."""


class Pictures(Protocol):
    """Draws what an evaluation shows, and writes it."""

    def draw(self, truth: Sample, found: Detections, class_names: Sequence[str]) -> np.ndarray:
        """An image with its truth and what was found in it, boxes in its pixels: (H, W, 3)."""

    def save(self, path: Path, pictures: Sequence[np.ndarray]) -> None:
        """Write all of an evaluation to one file."""


def add_terms(totals: dict[str, Number], terms: Mapping[str, Number]) -> dict[str, Number]:
    """Add loss terms, or counts, to the totals of the same names, which are returned."""
    for name, term in terms.items():
        totals[name] = totals[name] + term if name in totals else term
    return totals


class Window:
    """Adds up the steps between two reports; nothing waits for the device before ``figures``."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images, self._steps = 0, 0
        self._terms: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._norms: list[Tensor] = []

    def fetch(self, stream: Iterator[Batch], count: int) -> Iterator[Batch]:
        """The next ``count`` batches; the time until each is there counts as waiting."""
        for _ in range(count):
            start = time.perf_counter()
            batch = next(stream)
            self._waited += time.perf_counter() - start
            yield batch

    def add(
        self,
        terms: dict[str, Tensor],
        counts: dict[str, Tensor],
        images: int,
        norm: Tensor | None = None,
    ) -> None:
        """Count a step, of which only the images (of all ranks) if it was skipped.

        Loss terms are scalars, none for a skipped step; counts are hits and attempts, (2,) each.
        The norm is that of the gradient, the same on all ranks.
        """
        self._images += images
        if terms:
            add_terms(self._terms, terms)
            add_terms(self._counts, counts)
            self._steps += 1
            self._norms += [] if norm is None else [norm]

    def figures(self, ranks: Ranks) -> dict[str, float]:
        """Mean loss terms over the steps, summed over the ranks, accuracy, gradient and speed.

        An accuracy without a single attempt on any rank is left out.
        """
        figures = {"loss": math.nan}
        if self._steps:
            norms = [torch.stack(self._norms).mean()] if self._norms else []
            own = [*self._terms.values(), *self._counts.values(), *norms]
            flat = torch.cat([value.double().flatten() for value in own])
            values = iter(ranks.sum(flat).tolist())  # one exchange for all
            terms = {f"loss/{name}": next(values) / self._steps for name in self._terms}
            figures = {"loss": sum(terms.values()), **terms}
            for name in self._counts:
                hits, of = next(values), next(values)
                if of:
                    figures[f"accuracy/{name}"] = hits / of
            for total in values:
                figures["gradient_norm"] = total / ranks.world_size
        seconds = time.perf_counter() - self._start
        figures["images_per_second"] = self._images / seconds
        figures["data_wait_share"] = self._waited / seconds
        return figures
