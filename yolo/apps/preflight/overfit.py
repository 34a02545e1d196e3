"""Overfitting a few training images, which proves that a network can learn.

The stage takes some steps on one batch: the loss must be finite and fall. ``overfit`` runs the
training's own loop until its figure comes near the upper bound of ``truth.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yolo.apps.preflight.checks import Outcome, Preflight, TrialRun, first_images, within
from yolo.apps.preflight.truth import count_objects, find_bound
from yolo.apps.report.drawing import EvaluationPictures
from yolo.apps.report.page import line_chart
from yolo.apps.report.plots import Line
from yolo.config import Config, Resolved
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.evaluate.evaluators import DetectionEvaluator
from yolo.factory.anchors import settle_anchors
from yolo.factory.data import build_dataset
from yolo.factory.detector import build_coder
from yolo.factory.training import build_trainer
from yolo.train.distributed import Ranks

MOST_STEPS = 40
OVERFIT_SECONDS = 15.0
IMAGES_ON_A_CPU = 4  # a GPU takes the whole micro-batch
JUDGED_STEPS = 12  # fewer steps, on a slow machine, prove nothing
FIGURE = "AP50"  # what is called mAP@0.5: COCO's average precision at an IoU of 0.5
TARGET_FIGURE = 0.99
TOLERANCE = 0.01  # a network this close to the upper bound of its maps has learnt the images, too
EVALUATE_EVERY = 25
WARMUP_STEPS = 20  # the learning rate rises over these steps, or over a tenth of a shorter training
ORIGIN = "overfitting"  # where the values of the derived config came from, in the run's config.yaml


def check_overfitting(preflight: Preflight) -> Outcome:
    """Build the training's parts and let them overfit one batch."""
    trial = preflight.trial = TrialRun(preflight)
    images, precision = len(trial.batch), trial.learner.precision.name
    if trial.device.type == "cpu":
        images = min(images, IMAGES_ON_A_CPU)
    batch = first_images(trial.batch, images)
    losses: list[float] = []  # NaN where a step was skipped for not being finite
    for _ in within(OVERFIT_SECONDS, range(MOST_STEPS)):
        terms = trial.step(batch).terms
        losses.append(float(sum(terms.values())) if terms else math.nan)
    known = [loss for loss in losses if math.isfinite(loss)] or [math.nan]
    start, end = known[0], float(np.mean(known[-max(1, len(known) // 4) :]))
    few = f"only {len(losses)} steps in {OVERFIT_SECONDS:.0f} s: too few to judge the loss"
    line = Line(name="loss", x=np.arange(1, len(losses) + 1), y=np.array(losses))
    chart = line_chart("Loss of one batch", [line], may_be_log=True)
    return Outcome(
        summary=f"loss {start:.4g} to {end:.4g} in {len(losses)} steps on {images} images "
        f"({trial.parts.title}, {precision})",
        fault=_fault(losses, start, end),
        warnings=[few] if len(losses) < JUDGED_STEPS else [],
        lines=[line for report in trial.parts.load_reports for line in report.lines()],
        figures={"images": images, "losses": losses, "precision": precision},
        blocks=[chart] if math.isfinite(start) else [],
    )


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


class Overfit(NamedTuple):
    """How it ended."""

    figure: float  # the best mAP@0.5
    bound: float  # of it: what encoding and decoding the truth gives
    is_reached: bool
    step: int  # of the best
    minutes: float  # of training and evaluating
    folder: Path


def overfit(
    resolved: Resolved, ranks: Ranks, *, images: int, steps: int, log: Callable[[str], None]
) -> Overfit:
    """Train at most ``steps`` on the first ``images`` with a box, and score on them.

    Raises:
        Interrupted: a signal came.
    """
    train = build_dataset(resolved.config, "train")
    resolved = settle_anchors(resolved, train)
    resolved = overfitting_config(resolved, choose_images(train, images), steps=steps)
    trainer = build_trainer(resolved, ranks, pictures=EvaluationPictures())
    assert isinstance(resolved.config, Config)
    assert isinstance(trainer.evaluator, DetectionEvaluator)
    encoded = find_bound(trainer.evaluator, build_coder(resolved.config))
    bound = encoded.stats[FIGURE]
    log(
        f"the truth itself, encoded and decoded again, reaches mAP@0.5 {bound:.4f} "
        f"({encoded.placed} of {encoded.truths} boxes have a place)"
    )
    target = min(TARGET_FIGURE, bound - TOLERANCE)
    trainer.plan = replace(trainer.plan, target_figure=target)
    start = time.monotonic()
    progress = trainer.fit()
    figure = -1.0 if progress.best_figure is None else progress.best_figure
    return Overfit(
        figure=figure,
        bound=bound,
        is_reached=figure >= target,
        step=progress.best_step,
        minutes=(time.monotonic() - start) / 60,
        folder=trainer.folder,
    )


def choose_images(dataset: DetectionDataset, images: int) -> list[int]:
    """The ids of the first images with a box that is to be found."""
    has_object = count_objects(dataset) > 0
    ids: list[int] = dataset.annotations.image_ids[has_object][:images].tolist()
    if not ids:
        raise UserError("no image of data.train has a box: there is nothing to learn.")
    return ids


def overfitting_config(resolved: Resolved, image_ids: list[int], *, steps: int) -> Resolved:
    """The config with the values that overfitting a few images takes; all others stay.

    The images of ``data.train``, as they are, are the validation set too; each step sees all.
    """
    count, most = len(image_ids), resolved.config.training.micro_batch_size
    sizes = [n for n in range(1, count + 1) if count % n == 0]
    values = {
        "data.val": resolved.data["data"]["train"],
        "data.limit": image_ids,
        "data.train_share": 1.0,
        "data.sampling": "uniform",
        "data.augment": [],
        "data.mosaic": None,
        "data.mixup": None,
        "data.multi_scale": None,
        "training.steps": steps,
        "training.batch_size": count,
        "training.micro_batch_size": most if most == "auto" else max(n for n in sizes if n <= most),
        "training.schedule": {
            "type": "step",
            "milestones": [],
            "factors": [1.0],
            "warmup_steps": min(WARMUP_STEPS, steps // 10),
        },
        "training.ema": None,
        "training.patience": None,
        "training.checkpoint_every": steps,
        "evaluation.every": min(EVALUATE_EVERY, steps),
        "evaluation.share": 1.0,
        "evaluation.metric": "coco",
        "evaluation.both": False,
        "evaluation.monitor": FIGURE,
        # a folder further down, where validation.py does not look for the newest run
        "logging.directory": str(Path(resolved.data["logging"]["directory"]) / "overfit"),
    }
    return resolved.with_values(values, ORIGIN)
