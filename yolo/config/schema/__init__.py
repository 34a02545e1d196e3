"""What a YAML may say: one pydantic model per section, `Config` for the whole."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from yolo.config.schema.base import Section, Seed, broken_rules
from yolo.config.schema.classification import ClassificationConfig
from yolo.config.schema.data import DataConfig
from yolo.config.schema.losses import Loss
from yolo.config.schema.model import LOSS_OF_HEAD, ModelConfig
from yolo.config.schema.training import EvaluationConfig, LoggingConfig, TrainingConfig


class Config(Section):
    """Training of a detector."""

    task: Literal["detect"] = Field("detect", description="What is trained: a detector.")
    seed: Seed = Field(0, description="Decides weights, sample order and augmentation.")
    model: ModelConfig = Field(description="The detector.")
    loss: Loss = Field(description="What the detector is punished for.")
    data: DataConfig = Field(description="Data sets, and how their images are prepared.")
    training: TrainingConfig = Field(description="The training loop.")
    evaluation: EvaluationConfig = Field(description="Scoring on the validation set.")
    logging: LoggingConfig = Field(
        default_factory=lambda: LoggingConfig.model_validate({}),
        description="Lines of progress, and the folder of the runs.",
    )

    @model_validator(mode="after")
    def _one_generation(self) -> Config:
        head, rules = self.model.head.type, []
        if self.loss.type != LOSS_OF_HEAD[head]:
            rules.append(("loss.type", f"must be {LOSS_OF_HEAD[head]!r} for the head {head!r}"))
        if head == "yolov1" and self.data.image_size % 64:
            rules.append(("data.image_size", "must be a multiple of 64 for the head 'yolov1'"))
        if head == "yolov1" and self.data.multi_scale is not None:
            words = "must be null for the head 'yolov1', which works at data.image_size alone"
            rules.append(("data.multi_scale", words))
        if rules:
            raise broken_rules(rules)
        return self


TaskConfig = Config | ClassificationConfig
"""Any task's config: the union of the values of `TASKS`."""

TASKS: dict[str, type[TaskConfig]] = {"detect": Config, "classify": ClassificationConfig}
"""`task` -> its config. Another task adds its model here."""

DEFAULT_TASK = "detect"

__all__ = ["DEFAULT_TASK", "TASKS", "ClassificationConfig", "Config", "TaskConfig"]
