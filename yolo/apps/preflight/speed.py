"""The last stage: what limits the speed, whether memory and disk suffice, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import torch

from yolo.apps.preflight.flight import Flight, Outcome
from yolo.apps.preflight.rehearsal import Rehearsal, first_images, timed_steps
from yolo.apps.preflight.resources import checkpoint_gb, free_gb, memory_gb, total_gb
from yolo.apps.report.page import Bar, Cell, Html, table
from yolo.config import Config
from yolo.data.loader import TrainingBatches
from yolo.factory.data import largest_side_px
from yolo.factory.detector import DetectionLoss
from yolo.factory.evaluator import build_evaluator

LOADER_SECONDS = NETWORK_SECONDS = TOGETHER_SECONDS = 6.0
EVALUATED_IMAGES = 32

FULL_MEMORY = 0.9
"""Share of the memory above which a run lives dangerously."""

AHEAD = 1.2
"""A loader that is so many times as fast as the network does not hold it up."""

STEP_SECONDS = 4.0
"""On a machine where a whole micro-batch takes longer, fewer images are timed."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured.

    Attributes:
        loader, network, together: images per second of the loader alone, of training steps on a
            batch that is there, and of real training.
        evaluation: images per second.
        size_px: side of the training images that were timed.
        largest_px: side of the largest input.
        memory_gb, total_gb: at most in use with it, and what there is; None where not measured.
    """

    loader: float
    network: float
    together: float
    evaluation: float
    size_px: int
    largest_px: int
    memory_gb: float | None
    total_gb: float


def check_speed(flight: Flight) -> Outcome:
    """Measure loader, network and both, and tell what the whole training will take."""
    rehearsal = flight.rehearsal
    assert rehearsal is not None
    speed = _measure(flight, rehearsal)
    forecast = Forecast.of(flight.config, speed, _evaluated_images(flight))
    needed, free = checkpoint_gb(rehearsal), free_gb(flight.config.logging.directory)
    fault = None
    if needed > free:
        fault = (
            f"logging.directory: checkpoints will need {needed:.1f} GB, and "
            f"{flight.config.logging.directory} has {free:.1f} GB free; make room or name another."
        )
    return Outcome(
        summary=f"{speed.together:.1f} images/s in training (loader alone {speed.loader:.1f}, "
        f"network alone {speed.network:.1f}); {verdict(speed)}; the whole "
        f"training takes about {told_time(forecast.seconds)}",
        fault=fault,
        warnings=_warnings(speed),
        lines=[
            _memory_line(speed),
            forecast.line(),
            *_notes(flight.config, speed),
            f"checkpoints: {needed:.2f} of {free:,.0f} GB on the disk",
        ],
        figures={**asdict(speed), "forecast": asdict(forecast), "checkpoints_gb": needed},
        blocks=[_table(speed, flight.ranks.device)],
    )


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Seconds of the whole run, if nothing ends it before its last step."""

    steps: int
    evaluations: int
    training_seconds: float
    evaluation_seconds: float

    @classmethod
    def of(cls, config: Config, speed: Speed, evaluated_images: int) -> Forecast:
        """Count the steps and evaluations; one evaluation always stands at the end."""
        steps = config.training.steps
        evaluations = -(-steps // config.evaluation.every)
        return cls(
            steps=steps,
            evaluations=evaluations,
            training_seconds=_relative_cost(config, speed.size_px)
            * steps
            * config.training.batch_size
            / speed.together,
            evaluation_seconds=evaluations * evaluated_images / speed.evaluation,
        )

    @property
    def seconds(self) -> float:
        return self.training_seconds + self.evaluation_seconds

    def line(self) -> str:
        """For the terminal."""
        return (
            f"forecast: {self.steps:,} steps in {told_time(self.training_seconds)}, "
            f"{self.evaluations:,} evaluations in {told_time(self.evaluation_seconds)}"
        )


def _relative_cost(config: Config, size_px: int) -> float:
    """Pixels of the training's mean step over those of one at ``size_px``."""
    scale, steps = config.data.multi_scale, config.training.steps
    fixed = config.data.image_size**2
    if scale is None:
        return fixed / size_px**2
    until = steps if scale.until_step is None else min(scale.until_step, steps)
    varied = float(np.mean(np.square(range(scale.min, scale.max + 1, scale.step))))
    return (until * varied + (steps - until) * fixed) / steps / size_px**2


def _measure(flight: Flight, rehearsal: Rehearsal) -> Speed:
    images = _affordable_images(rehearsal)
    batch = first_images(rehearsal.batch, images)
    seconds = timed_steps(rehearsal, batch, NETWORK_SECONDS)
    largest_px = largest_side_px(flight.config.data)
    return Speed(
        loader=_loader_speed(rehearsal.parts.batches),
        network=images / seconds,
        together=_training_speed(rehearsal, images),
        evaluation=_evaluation_speed(flight, rehearsal),
        size_px=batch.images.shape[-1],
        largest_px=largest_px,
        memory_gb=memory_gb(rehearsal, largest_px, seconds / images),
        total_gb=total_gb(flight.ranks.device),
    )


def _affordable_images(rehearsal: Rehearsal) -> int:
    """The whole micro-batch, or as many images as a step of ``STEP_SECONDS`` has time for.

    Two at least: batch norm has no variance over a single value.
    """
    few = min(2, len(rehearsal.batch))
    start = time.perf_counter()
    rehearsal.step(first_images(rehearsal.batch, few))
    each = (time.perf_counter() - start) / few
    return max(few, min(len(rehearsal.batch), int(STEP_SECONDS / each)))


def _loader_speed(batches: TrainingBatches) -> float:
    """Images per second of the loader while the network rests.

    The batches that the workers keep ready come first and are not counted: a second goes by.
    """
    stream = batches.from_step(0)
    next(stream)
    warm_until = time.perf_counter() + LOADER_SECONDS / 4
    while time.perf_counter() < warm_until:
        next(stream)
    start, images = time.perf_counter(), 0
    while not images or time.perf_counter() - start < LOADER_SECONDS:
        images += len(next(stream))
    batches.close()
    return images / (time.perf_counter() - start)


def _training_speed(rehearsal: Rehearsal, images: int) -> float:
    """Images per second of steps on fresh batches; the first, which waits for workers, is out."""
    batches = rehearsal.parts.batches
    stream = batches.from_step(0)
    rehearsal.step(first_images(next(stream), images))
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < TOGETHER_SECONDS:
        batch = first_images(next(stream), images)
        rehearsal.step(batch)
        done += len(batch)  # the last micro-batch of a step may be smaller
    batches.close()
    return done / (time.perf_counter() - start)


def _evaluation_speed(flight: Flight, rehearsal: Rehearsal) -> float:
    """Images per second from the file to the figures, of some validation images."""
    val = flight.datasets["val"]
    few = val.select(np.sort(flight.shuffled(len(val))[:EVALUATED_IMAGES]))
    loss = rehearsal.parts.loss
    assert isinstance(loss, DetectionLoss)
    evaluator = build_evaluator(
        flight.config,
        few,
        flight.ranks,
        coder=loss.coder,
        precision=rehearsal.precision,
        loss=loss,
    )
    start = time.perf_counter()
    evaluator.evaluate(rehearsal.learner.evaluated_model(), lambda: False)
    return len(few) / (time.perf_counter() - start)


def _evaluated_images(flight: Flight) -> int:
    return max(1, round(flight.config.evaluation.share * len(flight.datasets["val"])))


def verdict(speed: Speed) -> str:
    """Which of the two is waited for."""
    if speed.loader < speed.network:
        return (
            "the loader limits: more data.workers, data.cache: disk or fewer transforms would help"
        )
    if speed.loader < AHEAD * speed.network:
        return "the loader just keeps up with the network"
    return "the network limits"


def told_time(seconds: float) -> str:
    """Rounded as one would say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / divisor
            return f"{value:.0f} {unit}" if unit != "h" else f"{value:.1f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def _memory_line(speed: Speed) -> str:
    place = f"at {speed.largest_px} px, the largest size"
    if speed.memory_gb is None:
        return f"memory {place}: not measured, a step would take too long on this CPU"
    return f"memory {place}: {speed.memory_gb:.1f} of {speed.total_gb:.1f} GB"


def _notes(config: Config, speed: Speed) -> list[str]:
    """What was not measured as it will be."""
    notes = []
    if config.data.multi_scale is not None:
        notes.append(f"timed at {speed.size_px} px; the forecast is for data.multi_scale's mean")
    if config.training.compile:
        notes.append("timed without training.compile")
    if config.data.cache != "none":
        notes.append("timed while data.cache fills; it is faster from the second epoch on")
    return notes


def _warnings(speed: Speed) -> list[str]:
    warnings = []
    if speed.memory_gb is not None and speed.memory_gb > FULL_MEMORY * speed.total_gb:
        warnings.append(f"{_memory_line(speed)}: make training.micro_batch_size smaller")
    if speed.loader < speed.network:
        warnings.append(verdict(speed))
    return warnings


def _table(speed: Speed, device: torch.device) -> Html:
    most = max(speed.loader, speed.network, speed.together, speed.evaluation)
    kinds = {
        "loader alone": speed.loader,
        f"network alone, training steps on {device.type}": speed.network,
        "training, both together": speed.together,
        "evaluation": speed.evaluation,
    }
    rows: list[list[Cell]] = [
        [name, Bar(round(value, 1), value / most)] for name, value in kinds.items()
    ]
    return table(["what", "images/s"], rows)
