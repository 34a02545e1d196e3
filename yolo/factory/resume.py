"""Going on with a run: which settings may change, and what follows where they do."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from yolo.config import ConfigError, TaskConfig, config_from_dict
from yolo.config.load import leaf_values
from yolo.config.wording import dotted
from yolo.errors import UserError
from yolo.factory.initial_weights import read_config
from yolo.factory.learner import build_schedule
from yolo.train.run_folder import Origin

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
"""And where the data lie. The rest decides the weights, or what the best figure so far is compared
with."""

_PARTS = {
    "order": "other ids, image sizes or order",
    "truth": "other boxes or labels",
    "files": "image files of other sizes in bytes",
}
"""Of a data set's fingerprint, in words; the others are numbers."""


def check_same_config(folder: Path, before: Mapping[str, Any], config: TaskConfig) -> None:
    """Refuse to go on with another config; all differences are listed.

    A setting that is younger than the run's config has its default there.
    """
    places = {dotted(key) for key, v in leaf_values(config.model_dump()) if isinstance(v, Path)}
    free = {*CHANGEABLE, *(key for key in places if key.startswith("data."))}
    changed = [
        f"{key}: {old} -> {new}"
        for key, (old, new) in _differences(before, config).items()
        if key not in free and not f"{key}.".startswith("data.test.")
    ]
    if changed:
        raise UserError(
            f"{folder}: a resumed run keeps its config, but this differs: {'; '.join(changed)}; "
            f"only {', '.join(CHANGEABLE)} and the paths of data may change"
        )


def _differences(before: Mapping[str, Any], config: TaskConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> old and new value, of all that differ."""
    with suppress(ConfigError):  # not one of this version's: the differences show
        before = config_from_dict(before).model_dump(mode="json")
    old, new = (
        {dotted(key): value for key, value in leaf_values(data)}
        for data in (before, config.model_dump(mode="json"))
    )
    pairs = {key: (old.get(key), new.get(key)) for key in old | new}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def changed_parts(before: Any, now: Mapping[str, Any]) -> list[str]:
    """What two fingerprints of a data set differ in, in words; nothing is known of no fingerprint.

    A checkpoint's may be anything.
    """
    before = before if isinstance(before, dict) else now
    return [
        _PARTS.get(part, f"{reprlib.repr(before.get(part))} {part} -> {value}")
        for part, value in now.items()
        if value != before.get(part)
    ]


def describe_changed_data(
    origin: Origin, fingerprints: Mapping[str, Mapping[str, Any]], *, accepted: bool
) -> Iterator[str]:
    """What of the data sets is not as it was, in lines for people; a UserError unless accepted.

    Older checkpoints hold no fingerprints: nothing is known to have changed.
    """
    known = origin.content.get("data", {})
    for split, now in fingerprints.items():
        if changed := changed_parts(known.get(split), now):
            line = f"data.{split} is not what {origin.path} was trained on: {', '.join(changed)}"
            if not accepted:
                advice = "put the old data back, or add --accept-changed-data: that is not exact"
                raise UserError(f"{line}; {advice}")
            yield f"{line}; going on with it, as asked for"


def describe_places(before: Mapping[str, Any], config: TaskConfig) -> Iterator[str]:
    """Which data stand elsewhere than in a checkpoint's config, in lines for people."""
    for key, (old, new) in _differences(before, config).items():
        if key.startswith("data.") and key not in CHANGEABLE:
            yield f"{key}: {old} -> {new}"


def describe_origin(origin: Origin, config: TaskConfig) -> Iterator[str]:
    """What to know of where a run goes on from, in lines for people."""
    if origin.complaint is not None:
        yield origin.complaint
    moved = list(describe_places(origin.content["config"], config))
    yield from moved
    if moved and "data" not in origin.content:  # no fingerprints, with which they were compared
        yield "  the classes are the same; the run goes on exactly if images and boxes are too"
    before = read_config(origin.path, origin.content)
    steps, new_steps = before.training.steps, config.training.steps
    if steps == new_steps:
        return
    yield f"training.steps: {steps:,} -> {new_steps:,}"
    schedule = config.training.schedule.type
    if schedule in ("one_cycle", "linear"):  # they span all steps
        step = origin.content["progress"]["step"]
        was, now = (
            each.training.optimizer.learning_rate * build_schedule(each)(step)
            for each in (before, config)
        )
        yield (
            f"  the schedule {schedule} spans all steps and changes with their number: at "
            f"step {step:,} the learning rate is {now:.2e} where it was to be {was:.2e}; a run "
            f"with {new_steps:,} steps from the start would have learnt otherwise"
        )
    for name in ("mosaic", "mixup"):
        mix = getattr(config.data, name, None)
        if mix is not None:
            was_end, end = (max(each - mix.off_for_last, 0) for each in (steps, new_steps))
            yield f"  data.{name} ends at step {end:,} instead of {was_end:,}"
