"""What learns, from a config: the same for a training and for a rehearsal of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from yolo.config import TaskConfig
from yolo.config.schema.training import (
    CosineRestartsConfig,
    LinearScheduleConfig,
    OneCycleConfig,
)
from yolo.factory.data import naming
from yolo.factory.tasks import Parts
from yolo.train.distributed import Ranks
from yolo.train.failures import explain_out_of_memory
from yolo.train.learner import Learner
from yolo.train.optimizers import Freeze, adam, adamw, sgd
from yolo.train.precision import Precision, choose_precision
from yolo.train.schedules import (
    Plateau,
    Schedule,
    cosine_restarts,
    linear,
    one_cycle,
    step_schedule,
)

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "step": step_schedule,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "linear": linear,
    "plateau": Plateau,
}


def build_learner(
    config: TaskConfig,
    parts: Parts,
    ranks: Ranks,
    *,
    precision: Precision | None = None,
    schedule: Schedule | None = None,
    images_per_step: int | None = None,
) -> Learner:
    """The learner of a task's parts, which it moves to the device.

    Args:
        precision: that of a resumed run; None chooses it.
        schedule, images_per_step: instead of the config's.

    Raises:
        UserError: the device's memory does not suffice, or the config freezes a part that the
            model does not have.
    """
    training = config.training
    advice = "make training.micro_batch_size or data.image_size smaller"
    with explain_out_of_memory(ranks.device, advice):
        model = parts.model.to(ranks.device)
        parts.loss.to(ranks.device)  # its coder with it
        if precision is None:
            precision = _choose_precision(config, model, ranks)
    return Learner(
        model=model,
        loss=parts.loss,
        accuracy=parts.accuracy,
        freeze=build_freeze(config, model),
        optimizer=build_optimizer(config, model),
        schedule=schedule or build_schedule(config),
        precision=precision,
        ranks=ranks,
        images_per_step=images_per_step or training.batch_size,
        gradient_clip=training.gradient_clip,
        ema_decay=None if training.ema is None else training.ema.decay,
        seed=config.seed,
    )


def _choose_precision(config: TaskConfig, model: nn.Module, ranks: Ranks) -> Precision:
    """Rank 0 measures, all ranks obey."""
    chosen = None
    if ranks.is_main:
        chosen = choose_precision(
            config.training.precision,
            model=model,
            device=ranks.device,
            images=micro_batch_size(config, ranks),
            size_px=config.data.image_size,
        )
    chosen = ranks.broadcast(chosen)
    assert chosen is not None
    return chosen


def micro_batch_size(config: TaskConfig, ranks: Ranks) -> int:
    """The config's, or this process's share of the batch where that is smaller."""
    training = config.training
    return min(training.micro_batch_size, -(-training.batch_size // ranks.world_size))


def build_optimizer(config: TaskConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all parameters, also of those that are frozen at first."""
    training = config.training
    settings = training.optimizer.model_dump()
    return OPTIMIZERS[settings.pop("type")](
        model, encoder_learning_rate=training.encoder_learning_rate, **settings
    )


def build_freeze(config: TaskConfig, model: nn.Module) -> Freeze | None:
    """What keeps its weights; None where the config freezes nothing.

    Raises:
        UserError: the config names a part that the model does not have.
    """
    freeze = config.training.freeze
    with naming("training.freeze.until"):
        return None if freeze is None else Freeze(model, **freeze.model_dump())


def build_schedule(config: TaskConfig) -> Schedule:
    """Factors of the optimizer's learning rates; ``Plateau`` alone has a state."""
    schedule, training = config.training.schedule, config.training
    settings = schedule.model_dump(exclude={"type"})
    if isinstance(schedule, CosineRestartsConfig):
        settings["eta_min_ratio"] = settings.pop("eta_min") / training.optimizer.learning_rate
    elif isinstance(schedule, OneCycleConfig | LinearScheduleConfig):
        settings["steps"] = training.steps
    return SCHEDULES[schedule.type](**settings)
