"""The sections `training`, `evaluation` and `logging`: how long, how fast, how judged."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from yolo.config.schema.base import (
    AtLeastOne,
    FilePath,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Section,
    broken_rule,
)
from yolo.config.schema.optimization import Optimizer, Schedule


class EMAConfig(Section):
    """Exponential moving average of the weights, used for evaluation."""

    decay: Fraction = Field(0.9998, description="Share of the average kept at each step.")


class FreezeConfig(Section):
    """Parts of the network that keep their weights."""

    until: str = Field(
        "encoder",
        description="The last frozen part: 'encoder' for all of it, or the name of one of its "
        "stages as scripts/summarise.py prints it, such as 'encoder.stages.3'; all before it is "
        "frozen too.",
    )
    batch_norm: Literal["trained", "frozen_part", "whole_network"] = Field(
        "frozen_part",
        description="Whose batch norms keep scale, shift and statistics: nobody's, the frozen "
        "part's, or those of the whole network.",
    )
    unfreeze_at: AtLeastOne | None = Field(
        None, description="The step from which on everything is trained; null never unfreezes."
    )


class TrainingConfig(Section):
    """The loop."""

    steps: AtLeastOne = Field(description="Optimizer steps.")
    batch_size: AtLeastOne = Field(
        64, description="Images per optimizer step over all devices; independent of the hardware."
    )
    micro_batch_size: AtLeastOne = Field(
        16,
        validate_default=True,  # against a batch_size that was given
        description="Images per forward pass and device; gradients are accumulated up to "
        "batch_size. Lower it where memory is short.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="'auto' is the fastest that the device runs natively."
    )
    optimizer: Optimizer = Field(description="What turns gradients into updates.")
    schedule: Schedule = Field(description="The learning rate over the steps.")
    encoder_learning_rate: Positive | None = Field(
        None,
        description="Learning rate of the encoder, scaled by the same schedule; null is the "
        "optimizer's.",
    )
    freeze: FreezeConfig | None = Field(
        None, description="Parts that keep their weights; null trains everything."
    )
    gradient_clip: Positive | None = Field(
        None, description="Largest norm of the gradient; null does not clip."
    )
    ema: EMAConfig | None = Field(None, description="Averaging of the weights; null is off.")
    patience: AtLeastOne | None = Field(
        None,
        description="Stop when the monitored figure has not risen for this many evaluations; "
        "null never stops early.",
    )
    checkpoint_every: AtLeastOne = Field(
        1000, description="Steps between two writings of last.pt; each evaluation writes it too."
    )
    max_skipped: AtLeastOne = Field(
        50,
        description="The run ends after so many steps in a row whose loss or gradient is not "
        "finite; each leaves the weights as they are.",
    )
    sync_batch_norm: bool = Field(
        False,
        description="Batch norm's statistics over all devices (GPUs only) instead of each one's "
        "micro-batch.",
    )
    compile: bool = Field(False, description="Compile the model with torch.compile.")

    @field_validator("micro_batch_size")
    @classmethod
    def _divides_batch(cls, micro: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch_size")
        if batch is not None and micro < batch and batch % micro:
            fitting = max(size for size in range(1, micro) if batch % size == 0)
            raise broken_rule(
                f"must divide training.batch_size ({batch}), for example {fitting}, or be at "
                "least as large"
            )
        return micro


CocoFigure = Literal[
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"
]
VocFigure = Literal["mAP", "mAP_11", "mAP_fixed"]
MONITORS_OF_METRIC = {"coco": get_args(CocoFigure), "voc": get_args(VocFigure)}


class EvaluationConfig(Section):
    """Scoring with the COCO or the VOC metric."""

    every: AtLeastOne = Field(description="Steps between evaluations; one more at the end.")
    share: PositiveFraction = Field(
        1.0, description="Share of the validation images to evaluate on."
    )
    backend: Literal["hotcoco", "pycocotools"] = Field(
        "hotcoco",
        description="Who computes the COCO metric: equal figures, hotcoco is faster.",
    )
    conf: Fraction = Field(0.01, description="Boxes of a lower score are dropped.")
    iou: Fraction = Field(
        0.45, description="Non-maximum suppression drops boxes of one class that overlap more."
    )
    max_detections: AtLeastOne = Field(300, description="Boxes per image that are kept.")
    max_candidates: AtLeastOne = Field(
        4096, description="Boxes per image that enter non-maximum suppression."
    )
    labels: Literal["best_class", "all_classes"] = Field(
        "best_class", description="One label per box, or every class that passes `conf`."
    )
    metric: Literal["coco", "voc"] = Field("coco", description="The metric to be judged by.")
    both: bool = Field(False, description="Report the other metric too.")
    voc_iou: Fraction = Field(
        0.5, description="IoU from which on the VOC metric takes a box for a truth's."
    )
    fixed_conf: Fraction = Field(
        0.4, description="The VOC metric is also reported for the boxes of at least this score."
    )
    monitor: Literal[CocoFigure, VocFigure] | None = Field(
        None,
        description="The figure of the metric that chooses best.pt; null is AP50 of the COCO "
        "metric, mAP of the VOC metric.",
    )
    batch_size: AtLeastOne = Field(16, description="Images per forward pass.")
    per_class: bool = Field(False, description="Report AP for each class too.")
    pictures: NotNegative = Field(8, description="Images drawn with predictions and truth.")

    @field_validator("monitor")
    @classmethod
    def _of_its_metric(cls, monitor: str | None, info: ValidationInfo) -> str | None:
        metric = info.data.get("metric")
        if monitor is not None and metric and monitor not in MONITORS_OF_METRIC[metric]:
            allowed = ", ".join(MONITORS_OF_METRIC[metric])
            raise broken_rule(f"must be a figure of the {metric} metric: {allowed}")
        return monitor


class LoggingConfig(Section):
    """What a run prints, and where it is kept."""

    every: AtLeastOne = Field(20, description="Steps between two lines of progress.")
    directory: FilePath = Field(Path("logs"), description="Folder that holds the runs.")
