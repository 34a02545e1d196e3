"""The learning rates of a training over its steps, as curves to draw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from yolo.apps.report.plots import Curve
from yolo.config import TaskConfig
from yolo.factory.optimizer import build_schedule
from yolo.train.optim.schedules import Plateau


def learning_rate_curves(name: str, config: TaskConfig) -> Iterator[Curve]:
    """The optimizer's rate before each step, and the encoder's where it has its own.

    A plateau's rate depends on results that are not known yet: it is drawn as if the monitored
    figure always rose, and its name says so.
    """
    training = config.training
    schedule, kind = build_schedule(config), str(training.schedule.type)
    if isinstance(schedule, Plateau):
        kind += ": depends on results, drawn as if the figure always rose"
    steps = np.arange(training.steps)
    factors = np.array([schedule(step) for step in steps.tolist()])
    rate, encoder_rate = training.optimizer.learning_rate, training.encoder_learning_rate
    yield Curve(name=f"{name} ({kind})", x=steps, y=rate * factors)
    if encoder_rate is not None and encoder_rate != rate:
        yield Curve(name=f"{name}, encoder ({kind})", x=steps, y=encoder_rate * factors)
