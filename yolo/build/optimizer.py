"""The optimizer, the schedule of its learning rate and what it leaves alone, from a config."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from yolo.config import TaskConfig
from yolo.engine.freezing import Freeze
from yolo.optim.optimizers import adam, adamw, sgd
from yolo.optim.schedules import Schedule, cosine_restarts, step_schedule

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}


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
    return None if freeze is None else Freeze(model, **freeze.model_dump())


def build_schedule(config: TaskConfig) -> Schedule:
    """Factors of the optimizer's learning rates."""
    schedule = config.training.schedule
    if schedule.type == "step":
        return step_schedule(
            milestones=schedule.milestones,
            factors=schedule.factors,
            warmup_steps=schedule.warmup_steps,
        )
    return cosine_restarts(
        t_0=schedule.t_0,
        t_mult=schedule.t_mult,
        eta_min_ratio=schedule.eta_min / config.training.optimizer.learning_rate,
        warmup_steps=schedule.warmup_steps,
    )
