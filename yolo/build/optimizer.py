"""The optimizer and the schedule of its learning rate from a config."""

from __future__ import annotations

from collections.abc import Callable

import torch

from yolo.config import Config
from yolo.models.detector import Detector
from yolo.optim.optimizers import adam, adamw, sgd
from yolo.optim.schedules import Schedule, cosine_restarts, step_schedule

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}


def build_optimizer(config: Config, detector: Detector) -> torch.optim.Optimizer:
    """The optimizer of all trainable parameters."""
    settings = config.training.optimizer.model_dump()
    return OPTIMIZERS[settings.pop("type")](detector, **settings)


def build_schedule(config: Config) -> Schedule:
    """Factors of the optimizer's learning rate."""
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
