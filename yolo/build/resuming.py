"""What must be the same when a run goes on, and what may differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yolo.data.datasets.coco import CocoDataset
from yolo.errors import UserError

CHANGEABLE = (
    "training.steps",
    "training.patience",
    "training.checkpoint_every",
    "evaluation.every",
    "evaluation.backend",
    "evaluation.batch_size",
    "evaluation.per_class",
    "evaluation.pictures",
    "logging.every",
    "data.workers",
)
"""The rest decides the weights, or what the best figure so far is compared with."""


def check_same_config(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """The config that a run is to go on with against the checkpoint's.

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


def check_same_classes_as(
    path: Path, checkpoint: Mapping[str, Any], dataset: CocoDataset, split: str
) -> None:
    """The categories of a data set against those that a checkpoint was trained with.

    Raises:
        UserError: their names, their ids or their order differ.
    """
    trained = list(zip(checkpoint["category_ids"], checkpoint["class_names"], strict=True))
    given = list(zip(dataset.category_ids, dataset.class_names, strict=True))
    if given == trained:
        return
    place = next(
        (i for i, pair in enumerate(zip(trained, given, strict=False)) if pair[0] != pair[1]),
        min(len(trained), len(given)),
    )
    raise UserError(
        f"{path}: trained with {len(trained)} categories, but data.{split} defines {len(given)}, "
        f"and they differ from number {place + 1} on; the data must have the same categories"
    )


def _leaves(data: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
