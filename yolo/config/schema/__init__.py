"""What a YAML may say: one pydantic model per section, `Config` for the whole."""

from typing import Literal

from pydantic import Field

from yolo.config.schema.base import Section, Seed
from yolo.config.schema.data import DataConfig
from yolo.config.schema.model import Loss, ModelConfig
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


TASKS: dict[str, type[Config]] = {"detect": Config}
"""`task` -> its config. Another task adds its model here."""

DEFAULT_TASK = "detect"

__all__ = ["DEFAULT_TASK", "TASKS", "Config"]
