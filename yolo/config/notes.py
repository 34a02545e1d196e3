"""What a valid config may not mean: settings that have no effect, or that a new `type` dropped."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from yolo.config.layers import Leaf, Tree
from yolo.config.schema import TaskConfig
from yolo.config.schema.training import CosineRestartsConfig, OneCycleConfig, StepScheduleConfig
from yolo.config.wording import Key, dotted, show, value_at


def notes_on_types(
    data: Mapping[str, Any], defaults: Collection[Key], replaced: Mapping[Key, Tree]
) -> Iterator[str]:
    """Settings that went with their `type` and that the new one has by default (``defaults``)."""
    for section, before in replaced.items():
        values = value_at(data, section, {})
        lost = [
            f"{name} is {show(values[name])}, not {show(leaf.value)} as in {leaf.origin.label}"
            for name, leaf in before.items()
            if isinstance(leaf, Leaf) and (*section, name) in defaults
            if leaf.value != values[name]
        ]
        old = before["type"]
        if lost and isinstance(old, Leaf):
            kinds = f"{show(old.value)} -> {show(values['type'])}"
            yield f"{dotted(section)}.type: {kinds}: the default of {'; '.join(lost)}"


def notes_on_steps(config: TaskConfig) -> Iterator[str]:
    """What `training.steps` never reaches, and frozen weights that were never trained."""
    training, data, steps = config.training, config.data, config.training.steps
    schedule, freeze, model = training.schedule, training.freeze, config.model
    end = f"training.steps is {steps:,}"
    if isinstance(schedule, StepScheduleConfig):
        late = [f"{milestone:,}" for milestone in schedule.milestones if milestone >= steps]
        if late:
            yield f"training.schedule.milestones: {', '.join(late)} never come, for {end}"
    if isinstance(schedule, CosineRestartsConfig) and schedule.t_0 > steps:
        yield (
            f"training.schedule.t_0: the rate does not fall to its end, for the first cycle has "
            f"{schedule.t_0:,} steps and {end}"
        )
    warmup = 0 if isinstance(schedule, OneCycleConfig) else schedule.warmup_steps
    if 2 * warmup > steps:
        yield f"training.schedule.warmup_steps: {warmup:,} are more than half, for {end}"
    for name in ("mosaic", "mixup"):
        mix = getattr(data, name, None)
        if mix is not None and mix.off_for_last >= steps:
            yield f"data.{name}: is off in all steps: off_for_last is {mix.off_for_last:,}, {end}"
    sizes = getattr(data, "multi_scale", None)
    for key, step in (
        ("training.freeze.unfreeze_at", freeze and freeze.unfreeze_at),
        ("data.multi_scale.until_step", sizes and sizes.until_step),
    ):
        if (step or 0) >= steps:
            yield f"{key}: {step:,} never comes, for {end}"
    if freeze is not None and model.encoder.weights is None and model.init is None:
        yield (
            "training.freeze: what is frozen keeps random weights, for neither "
            "model.encoder.weights nor model.init.weights is set"
        )
