"""What a YAML may hold: one pydantic model per section, `Config` for the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from yolo.config.schema.base import Section, Seed, broken_rules, key
from yolo.config.schema.classification import ClassificationConfig
from yolo.config.schema.data import DataConfig
from yolo.config.schema.model import LOSSES_OF_HEADS, Loss, ModelConfig
from yolo.config.schema.training import EvaluationConfig, LoggingConfig, TrainingConfig
from yolo.config.schema.transforms import transform_schema


class Config(Section):
    """Training of a detector."""

    task: Literal["detect"] = key("What is trained: a detector.", "detect")
    seed: Seed = key("Decides weights, sample order and augmentation.", 0)
    model: ModelConfig = key("The detector.")
    loss: Loss = key("What the detector is trained to minimise.")
    data: DataConfig = key("Data sets, and how their images are prepared.")
    training: TrainingConfig = key("The training loop.")
    evaluation: EvaluationConfig = key("Scoring on the validation set.")
    logging: LoggingConfig = key("Progress lines and run folders.", default_factory=LoggingConfig)

    @model_validator(mode="after")
    def _one_generation(self) -> Config:
        head, rules = self.model.head.type, []
        loss = LOSSES_OF_HEADS.get(head, head)
        if self.loss.type != loss:
            rules.append(("loss.type", f"must be {loss!r} for the head {head!r}"))
        if head == "yolov1" and self.data.image_size % 64:
            rules.append(("data.image_size", "must be a multiple of 64 for the head 'yolov1'"))
        if head == "yolov1" and self.data.multi_scale is not None:
            words = "must be null for the head 'yolov1', which works at data.image_size alone"
            rules.append(("data.multi_scale", words))
        scale_xy = getattr(self.model.head, "scale_xy", 2.0)
        if getattr(self.loss, "assignment", None) == "ratio" and scale_xy < 2:
            words = "needs model.head.scale_xy 2 or more: neighbouring cells learn the centre too"
            rules.append(("loss.assignment", words))
        if rules:
            raise broken_rules(rules)
        return self


TaskConfig = Config | ClassificationConfig
"""Any task's config: the union of the values of `TASKS`."""

TASKS: dict[str, type[TaskConfig]] = {"detect": Config, "classify": ClassificationConfig}
"""`task` -> its config. Another task adds its model here."""

DEFAULT_TASK = "detect"


def editor_schema(transforms: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the schema of one YAML file, which may be a part that others extend.

    So nothing but an argument of `transforms`, the contents of transforms.json, is required, and a
    component whose `type` stands in the extended file matches several members of its union.
    """
    tasks = [_loosened(model.model_json_schema()) for model in TASKS.values()]
    definitions = {name: schema for task in tasks for name, schema in task.pop("$defs").items()}
    definitions["Transform"] = transform_schema(transforms)
    extends = {
        "description": "YAML files to start from, relative to this file; later ones win.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    for task in tasks:
        task["properties"] = {"extends": extends, **task["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": tasks,
        "$defs": dict(sorted(definitions.items())),
    }


def _loosened(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        "anyOf" if name == "oneOf" else name: _loosened(value)
        for name, value in schema.items()
        if not (name == "required" and isinstance(value, list)) and name != "discriminator"
    }
