"""How a training is to go and how far it is: plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rhythm of a training.

    Attributes:
        steps: optimizer steps in all.
        evaluate_every, checkpoint_every, log_every: steps.
        patience: stop after so many evaluations without a better figure; None for never.
    """

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None


@dataclass
class Progress:
    """What a checkpoint carries beside the tensors.

    Attributes:
        step: optimizer steps done.
        evaluated_step: the step of the last complete evaluation.
        best_figure: the best monitored figure so far; None before the first evaluation.
        best_step: its step; of equals, the earlier.
        evaluations_since_best: for ``patience``.
        skipped_steps: steps whose gradients were not finite.
        scaler_backoffs: steps that the fp16 scaler gave up to find a smaller scale.
        figures: of the last evaluation.
    """

    step: int = 0
    evaluated_step: int = 0
    best_figure: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped_steps: int = 0
    scaler_backoffs: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def is_best(self) -> bool:
        """Whether the model as it stands is the best evaluated one."""
        return 0 < self.step == self.evaluated_step == self.best_step

    def note(self, figure: float, figures: dict[str, float]) -> None:
        """Take in an evaluation of the model as it stands; NaN is never the best."""
        self.evaluated_step, self.figures = self.step, dict(figures)
        if figure > (-math.inf if self.best_figure is None else self.best_figure):
            self.best_figure, self.best_step = figure, self.step
            self.evaluations_since_best = 0
        else:
            self.evaluations_since_best += 1
