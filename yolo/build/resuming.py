"""What must be the same when a run goes on, and what may differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolo.config import ConfigError, config_from_dict
from yolo.errors import UserError

CHANGEABLE = (
    "training.steps",
    "training.patience",
    "training.checkpoint_every",
    "evaluation.every",
    "evaluation.backend",
    "evaluation.batch_size",
    "evaluation.per_class",
    "evaluation.both",
    "evaluation.pictures",
    "logging.every",
    "data.workers",
)
"""The rest decides the weights, or what the best figure so far is compared with."""


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
