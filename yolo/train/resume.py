"""Going on with a run: from which checkpoint, and what of its config may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo.errors import UserError
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
    """The checkpoint that a run goes on from, and why it is not ``last.pt``."""

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
    """Give the checkpoint that a run goes on from the name ``last.pt``; on one rank.

    Otherwise the damaged file would be taken for the best one, which is linked to it.
    """
    if origin.complaint is not None:
        link_checkpoint(origin.path, folder / "last.pt")


def check_same_config(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare a checkpoint's config with the one that its run is to go on with, as nested dicts.

    Raises:
        UserError: something else than ``CHANGEABLE`` differs; all differences are listed.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
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


def describe_new_length(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    step: int,
    rate: Callable[[Mapping[str, Any]], float],
) -> Iterator[str]:
    """What follows from another ``training.steps`` than the run had, in lines for people.

    Args:
        before, now: configs that ``check_same_config`` let pass.
        step: where the run goes on.
        rate: the learning rate of a config at that step.
    """
    steps, new_steps = before["training"]["steps"], now["training"]["steps"]
    if steps == new_steps:
        return
    yield f"training.steps: {steps:,} -> {new_steps:,}"
    schedule = now["training"]["schedule"]["type"]
    if schedule in ("one_cycle", "linear"):
        yield (
            f"  the schedule {schedule} spans all steps and changes with their number: at "
            f"step {step:,} the learning rate is {rate(now):.2e} where it was to be "
            f"{rate(before):.2e}; a run with {new_steps:,} steps from the start would have learnt "
            "otherwise"
        )
    for name in ("mosaic", "mixup"):
        mix = now["data"].get(name)
        if mix is not None:
            ends = [max(each - mix["off_for_last"], 0) for each in (steps, new_steps)]
            yield f"  data.{name} ends at step {ends[1]:,} instead of {ends[0]:,}"


def _leaves(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
