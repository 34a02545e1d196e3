"""The optimizer, the schedule of its learning rate and what it leaves alone, from a config."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from yolo.config import TaskConfig
from yolo.config.schema.optimization import (
    CosineRestartsConfig,
    LinearScheduleConfig,
    OneCycleConfig,
)
from yolo.train.freezing import Freeze
from yolo.train.optim.optimizers import adam, adamw, sgd
from yolo.train.optim.schedules import (
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
    """Factors of the optimizer's learning rates; ``Plateau`` alone has a state."""
    schedule, training = config.training.schedule, config.training
    settings = schedule.model_dump(exclude={"type"})
    if isinstance(schedule, CosineRestartsConfig):
        settings["eta_min_ratio"] = settings.pop("eta_min") / training.optimizer.learning_rate
    elif isinstance(schedule, OneCycleConfig | LinearScheduleConfig):
        settings["steps"] = training.steps
    return SCHEDULES[schedule.type](**settings)
