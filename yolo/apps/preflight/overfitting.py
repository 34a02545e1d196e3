"""The eighth stage: the real learner on one batch; its loss must be finite and fall."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from yolo.apps.preflight.flight import Flight, Outcome, within
from yolo.apps.preflight.rehearsal import Rehearsal, first_images, rehearse
from yolo.apps.report.charts import Line, line_chart
from yolo.apps.report.page import Html

MOST_STEPS = 40
OVERFIT_SECONDS = 15.0

IMAGES_ON_A_CPU = 4
"""A GPU takes the whole micro-batch."""

JUDGED_STEPS = 12
"""Fewer steps, on a slow machine, prove nothing."""


def check_overfitting(flight: Flight) -> Outcome:
    """Build the training's parts and let them learn one batch by heart."""
    train, val = flight.datasets["train"], flight.datasets["val"]
    rehearsal = rehearse(flight.config, train, val, flight.ranks)
    flight.rehearsal = rehearsal
    images = len(rehearsal.batch)
    if flight.ranks.device.type == "cpu":
        images = min(images, IMAGES_ON_A_CPU)
    losses = _learn(rehearsal, images)
    known = [loss for loss in losses if math.isfinite(loss)]
    start, end = _ends(known)
    return Outcome(
        summary=f"loss {start:.4g} to {end:.4g} in {len(losses)} steps on {images} images "
        f"({rehearsal.parts.title}, {rehearsal.precision.name})",
        fault=_fault(losses, start, end),
        warnings=_too_few(losses),
        lines=[line for report in rehearsal.parts.load_reports for line in report.lines()],
        figures={"images": images, "losses": losses, "precision": rehearsal.precision.name},
        blocks=_chart(losses) if known else [],
    )


def _learn(rehearsal: Rehearsal, images: int) -> list[float]:
    """The loss of each step; NaN where the step was skipped for not being finite."""
    batch = first_images(rehearsal.batch, images)
    losses = []
    for _ in within(OVERFIT_SECONDS, range(MOST_STEPS)):
        terms = rehearsal.step(batch).terms
        losses.append(float(sum(terms.values())) if terms else math.nan)
    return losses


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    """The first loss and the mean of the last quarter."""
    if not losses:
        return math.nan, math.nan
    last = max(1, len(losses) // 4)
    return losses[0], float(np.mean(losses[-last:]))


def _fault(losses: Sequence[float], start: float, end: float) -> str | None:
    wild = sum(not math.isfinite(loss) for loss in losses)
    if wild > len(losses) / 2:
        return (
            f"training: {wild} of {len(losses)} steps on one batch had a loss or gradient that is "
            "not finite; lower training.optimizer.learning_rate, or set training.precision: fp32."
        )
    if len(losses) >= JUDGED_STEPS and end >= start:
        return (
            f"training: the loss of one batch rose from {start:.4g} to {end:.4g} in {len(losses)} "
            "steps that saw nothing else; lower training.optimizer.learning_rate."
        )
    return None


def _too_few(losses: Sequence[float]) -> list[str]:
    if len(losses) >= JUDGED_STEPS:
        return []
    return [f"only {len(losses)} steps in {OVERFIT_SECONDS:.0f} s: too few to judge the loss"]


def _chart(losses: Sequence[float]) -> list[Html]:
    line = Line(name="loss", x=np.arange(1, len(losses) + 1), y=np.array(losses))
    return [line_chart("Loss of one batch", [line], may_be_log=True)]
