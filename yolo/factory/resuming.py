"""What must be the same when a run goes on, and what may differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo.config import ConfigError, TaskConfig, config_from_dict
from yolo.config.schema.optimization import LinearScheduleConfig, OneCycleConfig
from yolo.errors import UserError
from yolo.factory.optimizer import build_schedule
from yolo.train.checkpoint import link_checkpoint, load_checkpoint

CHANGEABLE = (
    "training.steps",
    "training.patience",
    "training.checkpoint_every",
    "training.max_skipped",
    "evaluation.every",
    "evaluation.backend",
    "evaluation.batch_size",
    "evaluation.per_class",
    "evaluation.both",
    "evaluation.pictures",
    "logging.every",
    "data.workers",
    "data.on_error",
    "data.max_bad_share",
)
"""The rest decides the weights, or what the best figure so far is compared with."""


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a run goes on from.

    Attributes:
        path: ``last.pt``, or ``best.pt`` where that is damaged or missing.
        content: what it holds.
        complaint: why it is not ``last.pt``; None if it is.
    """

    path: Path
    content: dict[str, Any]
    complaint: str | None


def newest_whole_checkpoint(folder: Path) -> Origin:
    """``last.pt``, or where it is damaged the best one from before.

    Raises:
        UserError: none is whole, or ``last.pt`` may not be read, which proves no damage.
    """
    last, best = folder / "last.pt", folder / "best.pt"
    try:
        return Origin(last, load_checkpoint(last), None)
    except UserError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        damage = str(error)
    try:
        content = load_checkpoint(best)
    except UserError as error:
        raise UserError(
            f"{damage}; {error}; so nothing is left to go on from, begin anew"
        ) from error
    step = content["progress"]["step"]
    return Origin(best, content, f"{damage}; going on from {best}, which is of step {step}")


def replace_damaged(folder: Path, origin: Origin) -> None:
    """Give the checkpoint that a run goes on from the name ``last.pt``; for one process alone.

    Otherwise the damaged file would be taken for the best one, which is linked to it.
    """
    if origin.complaint is not None:
        link_checkpoint(origin.path, folder / "last.pt")


def check_same_config(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """The config that a run is to go on with against the checkpoint's.

    A setting that the checkpoint's lacks, for it is older than the setting, counts as its default.

    Raises:
        UserError: something else than ``CHANGEABLE`` differs; all differences are listed.
    """
    old, new = dict(_leaves(_with_defaults(before))), dict(_leaves(_with_defaults(now)))
    changed = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and key not in CHANGEABLE
    ]
    if changed:
        raise UserError(
            f"{folder}: a resumed run keeps its config, but this differs: {'; '.join(changed)}; "
            f"only {', '.join(CHANGEABLE)} may change"
        )


def describe_origin(origin: Origin, config: TaskConfig) -> Iterator[str]:
    """What to know of where a run goes on from, in lines for people."""
    if origin.complaint is not None:
        yield origin.complaint
    yield from describe_new_length(
        origin.content["config"], config, origin.content["progress"]["step"]
    )


def describe_new_length(before: dict[str, Any], config: TaskConfig, step: int) -> Iterator[str]:
    """What follows from another ``training.steps`` than the run had, in lines for people.

    Args:
        before: the checkpoint's config.
        config: the one that the run goes on with; it differs in nothing else that decides the
            weights.
        step: where it goes on.
    """
    old = config_from_dict(before)
    steps, new_steps = old.training.steps, config.training.steps
    if steps == new_steps:
        return
    yield f"training.steps: {steps:,} -> {new_steps:,}"
    schedule = config.training.schedule
    if isinstance(schedule, OneCycleConfig | LinearScheduleConfig):
        was, now = (
            each.training.optimizer.learning_rate * build_schedule(each)(step)
            for each in (old, config)
        )
        yield (
            f"  the schedule {schedule.type} spans all steps and changes with their number: at "
            f"step {step:,} the learning rate is {now:.2e} where it was to be {was:.2e}; a run "
            f"with {new_steps:,} steps from the start would have learnt otherwise"
        )
    for name in ("mosaic", "mixup"):
        mix = getattr(config.data, name, None)
        if mix is not None:
            then, ends = (max(each - mix.off_for_last, 0) for each in (steps, new_steps))
            yield f"  data.{name} ends at step {ends:,} instead of {then:,}"


def _with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    try:
        return config_from_dict(data).model_dump(mode="json")
    except ConfigError:  # not one of this version's: the differences tell
        return data


def _leaves(data: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
