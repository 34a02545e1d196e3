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
        enough: stop once the monitored figure reaches this; None for never.
        max_skipped: end with an error after so many steps in a row that were not finite; None for
            never.
    """

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None
    enough: float | None = None
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
        skipped_in_a_row: steps skipped since the last whole one; checkpoints from before it was
            counted have none.
        figures: of the last evaluation; those that are no numbers are left out.
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
