"""A few training images learnt by heart, with the training's own loop: proof that it can learn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from yolo.apps.preflight.encoded_truth import EncodedTruth
from yolo.apps.report.drawing import EvaluationPictures
from yolo.config import Config, Resolved
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.evaluate.detection_evaluator import DetectionEvaluator
from yolo.factory.anchors import settle_anchors
from yolo.factory.data import build_dataset, build_evaluation_batches
from yolo.factory.detector import build_coder
from yolo.factory.training import build_trainer
from yolo.train.distributed import Ranks
from yolo.train.trainer import Trainer

FIGURE = "AP50"
"""What is called mAP@0.5: COCO's average precision at an IoU of 0.5."""

ENOUGH = 0.99
CLOSE = 0.01
"""A network this close to what its maps can say at most has learnt the images, too."""

EVALUATE_EVERY = 25
WARMUP_STEPS = 20
"""The learning rate rises over these steps, or over a tenth of a shorter training."""

ORIGIN = "overfitting"
"""Where the values of the derived config came from, in the run's config.yaml."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What encoding and decoding the truth gives: the most that the network's maps can say.

    Attributes:
        figure: mAP@0.5, through the same suppression and metric as the network's own.
        truths, placed: boxes that are not ignored, and those that have a place in the maps.
    """

    figure: float
    truths: int
    placed: int


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """How it ended.

    Attributes:
        figure: the best mAP@0.5 on the images.
        bound: for that.
        step: at which it was reached.
        minutes: of training and evaluating.
        folder: the run's.
    """

    figure: float
    bound: Bound
    step: int
    minutes: float
    folder: Path

    @property
    def is_reached(self) -> bool:
        return self.figure >= min(ENOUGH, self.bound.figure - CLOSE)


def overfit(
    resolved: Resolved, ranks: Ranks, *, images: int, steps: int, log: Callable[[str], None]
) -> Overfit:
    """Train on a few images without augmentation and score on the same ones.

    Args:
        resolved: a detector's config; see ``overfitting_config`` for what is made of it.
        ranks: this process, alone.
        images: how many: the first ones with a box.
        steps: most optimizer steps.
        say: prints lines.

    Raises:
        UserError: data, weights, device or folder are at fault.
        Interrupted: a signal came.
    """
    train = build_dataset(resolved.config, "train")
    resolved = settle_anchors(resolved, train)
    resolved = overfitting_config(resolved, choose_images(train, images), steps=steps)
    trainer = build_trainer(resolved, ranks, name=None, pictures=EvaluationPictures())
    bound = find_bound(resolved, trainer, ranks)
    log(
        f"the truth itself, encoded and decoded again, reaches mAP@0.5 {bound.figure:.4f} "
        f"({bound.placed} of {bound.truths} boxes have a place)"
    )
    trainer.plan = replace(trainer.plan, enough=min(ENOUGH, bound.figure - CLOSE))
    start = time.monotonic()
    progress = trainer.fit()
    return Overfit(
        figure=-1.0 if progress.best_figure is None else progress.best_figure,
        bound=bound,
        step=progress.best_step,
        minutes=(time.monotonic() - start) / 60,
        folder=trainer.folder,
    )


def choose_images(dataset: DetectionDataset, images: int) -> list[int]:
    """The ids of the first images with a box that is to be found.

    Raises:
        UserError: there is none.
    """
    annotations = dataset.annotations
    counts = np.bincount(annotations.image_index()[~annotations.ignored], minlength=len(dataset))
    ids: list[int] = annotations.image_ids[counts > 0][:images].tolist()
    if not ids:
        raise UserError("no image of data.train has a box: there is nothing to learn.")
    return ids


def overfitting_config(resolved: Resolved, image_ids: list[int], *, steps: int) -> Resolved:
    """The config with the values that learning a few images by heart takes.

    The images of ``data.train``, as they are, are the validation set too; each step sees all of
    them. The optimizer is the config's, its learning rate constant after a short warm-up, without
    averaging of weights; the figure is COCO's AP50. Everything else stays.
    """
    training = resolved.config.training
    count = len(image_ids)
    fitting = [size for size in range(1, count + 1) if count % size == 0]
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
        "training.micro_batch_size": max(s for s in fitting if s <= training.micro_batch_size),
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


def find_bound(resolved: Resolved, trainer: Trainer, ranks: Ranks) -> Bound:
    """Let the encoded truth take the network's place in the training's own evaluation."""
    config, evaluator = resolved.config, trainer.evaluator
    assert isinstance(config, Config) and isinstance(evaluator, DetectionEvaluator)
    dataset = build_dataset(config, "val")
    speaker = EncodedTruth(
        build_evaluation_batches(config, dataset, ranks),
        coder=build_coder(config),
        classes=len(dataset.class_names),
    )
    found = evaluator.find(speaker, lambda: False)
    assert found is not None
    figure = evaluator.score(found).stats[FIGURE]
    return Bound(figure=figure, truths=speaker.truths, placed=speaker.placed)
