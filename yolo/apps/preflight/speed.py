"""The last stage: what limits the speed, whether memory and disk suffice, and how long it takes."""

from __future__ import annotations

import itertools
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from yolo.apps.preflight.checks import Outcome, Preflight, TrialRun, first_images, within
from yolo.apps.report.page import Filled, table
from yolo.config import Config
from yolo.data.image_cache import memory_bytes
from yolo.factory.detector import DetectionLoss
from yolo.factory.evaluator import build_evaluator
from yolo.records import Batch
from yolo.train.interruption import Interruption

LOADER_SECONDS = NETWORK_SECONDS = TOGETHER_SECONDS = 6.0
EVALUATED_IMAGES = 32
FULL_MEMORY = 0.9  # share of the memory above which a run is at risk
FAST_LOADER = 1.2  # a loader that is so many times as fast as the network does not hold it up
STEP_SECONDS = 4.0  # on a machine where a whole micro-batch takes longer, fewer images are timed
LONGEST_STEP_SECONDS = 20.0  # a step at the largest size that takes longer on a CPU is not taken
COPIES_ON_DISK = 3  # last.pt, best.pt and the one that is being written
GIGABYTE = 1e9


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured: images per second, sizes and memory."""

    loader: float  # alone
    network: float  # training steps on a batch that is there
    together: float  # real training
    evaluation: float
    size_px: int  # side of the training images that were timed
    largest_px: int  # side of the largest input
    memory_gb: float | None  # at most in use with it; None where not measured
    total_gb: float

    def verdict(self) -> str:
        if self.loader >= FAST_LOADER * self.network:
            return "the network limits"
        if self.loader >= self.network:
            return "the loader just keeps up with the network"
        return (
            "the loader limits: more data.workers, data.cache: disk or fewer transforms would help"
        )

    def memory(self) -> str:
        place = f"at {self.largest_px} px, the largest size"
        if self.memory_gb is None:
            return f"memory {place}: not measured, a step would take too long on this CPU"
        return f"memory {place}: {self.memory_gb:.1f} of {self.total_gb:.1f} GB"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Seconds of the whole run, if nothing ends it before its last step."""

    steps: int
    evaluations: int
    training_seconds: float
    evaluation_seconds: float

    @classmethod
    def of(cls, config: Config, speed: Speed, evaluated_images: int) -> Forecast:
        """Count the steps, by the pixels of their mean, and the evaluations; one ends the run."""
        steps, scale = config.training.steps, config.data.multi_scale
        step_px2 = fixed = float(config.data.image_size**2)
        if scale is not None:
            until = steps if scale.until_step is None else min(scale.until_step, steps)
            varied = float(np.mean(np.square(range(scale.min, scale.max + 1, scale.step))))
            step_px2 = (until * varied + (steps - until) * fixed) / steps
        images = steps * config.training.batch_size * step_px2 / speed.size_px**2
        evaluations = -(-steps // config.evaluation.every)
        return cls(
            steps=steps,
            evaluations=evaluations,
            training_seconds=images / speed.together,
            evaluation_seconds=evaluations * evaluated_images / speed.evaluation,
        )

    @property
    def seconds(self) -> float:
        return self.training_seconds + self.evaluation_seconds


def check_speed(preflight: Preflight) -> Outcome:
    """Measure loader, network and both, and forecast the whole training."""
    trial, config = preflight.trial, preflight.config
    assert trial is not None
    speed = _measure(preflight, trial)
    evaluated = max(1, round(config.evaluation.share * len(preflight.datasets["val"])))
    forecast = Forecast.of(config, speed, evaluated)
    directory = config.logging.directory
    there = next(folder for folder in (directory, *directory.parents) if folder.exists())
    needed, free = _checkpoint_gb(trial), shutil.disk_usage(there).free / GIGABYTE
    fault = (
        f"logging.directory: checkpoints will need {needed:.1f} GB, and "
        f"{directory} has {free:.1f} GB free; make room or name another."
    )
    return Outcome(
        summary=f"{speed.together:.1f} images/s in training (loader alone {speed.loader:.1f}, "
        f"network alone {speed.network:.1f}); {speed.verdict()}; the whole "
        f"training takes about {format_seconds(forecast.seconds)}",
        fault=fault if needed > free else None,
        warnings=[*preflight.resolved.notes, *_warnings(speed)],
        lines=[
            speed.memory(),
            f"forecast: {forecast.steps:,} steps in {format_seconds(forecast.training_seconds)}, "
            f"{forecast.evaluations:,} evaluations in "
            f"{format_seconds(forecast.evaluation_seconds)}",
            *_notes(config, speed),
            f"checkpoints: {needed:.2f} of {free:,.0f} GB on the disk",
        ],
        figures={**asdict(speed), "forecast": asdict(forecast), "checkpoints_gb": needed},
        blocks=[_table(speed, trial.device)],
    )


def _warnings(speed: Speed) -> Iterator[str]:
    if speed.memory_gb is not None and speed.memory_gb > FULL_MEMORY * speed.total_gb:
        yield f"{speed.memory()}: make training.micro_batch_size smaller"
    if speed.loader < speed.network:
        yield speed.verdict()


def _notes(config: Config, speed: Speed) -> Iterator[str]:
    """What was not measured as it will be."""
    if config.data.multi_scale is not None:
        yield f"timed at {speed.size_px} px; the forecast is for data.multi_scale's mean"
    if config.training.compile:
        yield "timed without training.compile"
    if config.data.cache != "none":
        yield "timed while data.cache fills; it is faster from the second epoch on"


def _table(speed: Speed, device: torch.device) -> Markup:
    kinds = {
        "loader alone": speed.loader,
        f"network alone, training steps on {device.type}": speed.network,
        "training, both together": speed.together,
        "evaluation": speed.evaluation,
    }
    most = max(kinds.values())
    rows = [[kind, Filled(round(rate, 1), rate / most)] for kind, rate in kinds.items()]
    return table(["what", "images/s"], rows)


def _measure(preflight: Preflight, trial: TrialRun) -> Speed:
    batches, images = trial.parts.batches, _affordable_images(trial)
    steps = _train(trial, itertools.repeat(trial.batch), images)
    network = _images_per_second(steps, NETWORK_SECONDS)
    # the batches that the workers keep ready come first and are not counted: a second goes by
    counts = map(len, batches.from_step(0))
    loader = _images_per_second(counts, LOADER_SECONDS, LOADER_SECONDS / 4)
    batches.close()
    steps = _train(trial, batches.from_step(0), images)
    together = _images_per_second(steps, TOGETHER_SECONDS)
    batches.close()
    largest_px = preflight.config.data.largest_side_px()
    return Speed(
        loader=loader,
        network=network,
        together=together,
        evaluation=_evaluation_speed(preflight, trial),
        size_px=trial.batch.images.shape[-1],
        largest_px=largest_px,
        memory_gb=_memory_gb(trial, largest_px, 1 / network),
        total_gb=total_gb(trial.device),
    )


def _affordable_images(trial: TrialRun) -> int:
    """The whole micro-batch, or as many images as a step of ``STEP_SECONDS`` has time for.

    Two at least: batch norm has no variance over a single value.
    """
    few = min(2, len(trial.batch))
    start = time.perf_counter()
    trial.step(first_images(trial.batch, few))
    each = (time.perf_counter() - start) / few
    return max(few, min(len(trial.batch), int(STEP_SECONDS / each)))


def _images_per_second(counts: Iterable[int], seconds: float, warm_up_seconds: float = 0) -> float:
    """Of something that counts its images: for so long, first without measuring.

    It counts once at least for either, for the first time waits for workers.
    """
    sum(within(warm_up_seconds, counts))
    start = time.perf_counter()
    return sum(within(seconds, counts)) / (time.perf_counter() - start)


def _train(trial: TrialRun, batches: Iterable[Batch], images: int) -> Iterator[int]:
    """A step for each batch, and how many images it had: the last micro-batch may be smaller."""
    for batch in batches:
        some = first_images(batch, images)
        trial.step(some)
        yield len(some)


def _evaluation_speed(preflight: Preflight, trial: TrialRun) -> float:
    """From the file to the figures, of some validation images."""
    val, loss = preflight.datasets["val"], trial.parts.loss
    few = val.select(np.sort(preflight.shuffled(val)[:EVALUATED_IMAGES]))
    assert isinstance(loss, DetectionLoss)
    config, precision = preflight.config, trial.learner.precision
    evaluator = build_evaluator(
        config, few, preflight.ranks, coder=loss.coder, precision=precision, loss=loss
    )
    start = time.perf_counter()
    evaluator.evaluate(trial.learner.evaluated_model(), Interruption())
    return len(few) / (time.perf_counter() - start)


def format_seconds(seconds: float) -> str:
    """Rounded: 40 s, 12 min, 3.5 h, 2.1 days."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def _memory_gb(trial: TrialRun, largest_px: int, seconds_per_image: float) -> float | None:
    """Most memory in use in a step of the whole micro-batch at the largest size; None if unknown.

    Of a CPU it is the process' peak so far, and unknown where the step would take too long.
    """
    batch, device = trial.batch, trial.device
    seconds = len(batch) * seconds_per_image * (largest_px / batch.images.shape[-1]) ** 2
    if seconds > LONGEST_STEP_SECONDS and device.type == "cpu":
        return None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    size = (largest_px, largest_px)  # the truth is relative to the image
    images = functional.interpolate(batch.images, size=size, mode="nearest")
    trial.step(replace(batch, images=images.contiguous(memory_format=torch.channels_last)))
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / GIGABYTE
    if sys.platform == "win32":
        return None
    import resource  # no system but Unix has it

    unit = 1 if sys.platform == "darwin" else 1024  # of getrusage
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIGABYTE


def total_gb(device: torch.device) -> float:
    """All memory of the GPU, or of the machine; infinite where that is unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / GIGABYTE
    return (memory_bytes() or math.inf) / GIGABYTE


def _checkpoint_gb(trial: TrialRun) -> float:
    """What the checkpoints of a run take, each with weights, averages and the optimizer's state."""
    found = [leaf for leaf in tree_leaves(trial.learner.state_dict()) if isinstance(leaf, Tensor)]
    return COPIES_ON_DISK * sum(leaf.numel() * leaf.element_size() for leaf in found) / GIGABYTE
