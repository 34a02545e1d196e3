"""What an evaluation gives back, whatever the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import nn


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
    pictures: Sequence[np.ndarray] = field(default_factory=tuple)


class Evaluator(Protocol):
    """Scores a model on data of its own."""

    monitor: str
    """The name of the monitored figure."""

    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool]) -> Evaluation | None:
        """Score the model, on all ranks together; None if it was interrupted on any of them."""
