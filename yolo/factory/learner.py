"""What learns, from a config: the same for a training and for a rehearsal of it."""

from __future__ import annotations

from collections.abc import Callable

from yolo.config import TaskConfig
from yolo.factory.optimizer import build_optimizer
from yolo.factory.parts import Parts
from yolo.train.distributed import Ranks
from yolo.train.freezing import Freeze
from yolo.train.learner import Learner
from yolo.train.precision import Precision


def build_learner(
    config: TaskConfig,
    parts: Parts,
    *,
    freeze: Freeze | None,
    precision: Precision,
    ranks: Ranks,
    schedule: Callable[[int], float],
    images_per_step: int,
) -> Learner:
    """The learner of a task's parts.

    Args:
        config: the whole config.
        parts: model and loss, on the device.
        freeze: what keeps its weights; None trains everything.
        precision: the number format of the forward pass.
        ranks: this process among all.
        schedule: optimizer step -> factor of the configured learning rates.
        images_per_step: over all micro-batches and ranks.
    """
    training = config.training
    return Learner(
        model=parts.model,
        loss=parts.loss,
        accuracy=parts.accuracy,
        freeze=freeze,
        optimizer=build_optimizer(config, parts.model),
        schedule=schedule,
        precision=precision,
        ranks=ranks,
        images_per_step=images_per_step,
        gradient_clip=training.gradient_clip,
        ema_decay=None if training.ema is None else training.ema.decay,
        seed=config.seed,
    )
