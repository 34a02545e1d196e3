"""The sections `training`, `evaluation` and `logging`: how long, how fast, how judged."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from yolo.config.schema.base import (
    AtLeastOne,
    BelowOne,
    ByType,
    FilePath,
    Fraction,
    NotNegative,
    NotNegativeFloat,
    Positive,
    PositiveFraction,
    Section,
    broken_rule,
    key,
)


class AdamConfig(Section):
    type: Literal["adam"] = key("Adam (Kingma & Ba 2015); its weight decay is an L2 term.")
    learning_rate: Positive = key("Learning rate before the schedule's factor.")
    weight_decay: NotNegativeFloat = key("Not on norms and biases.", 0.0)
    betas: tuple[BelowOne, BelowOne] = key("Decays of gradient and squared gradient.", (0.9, 0.999))


class AdamWConfig(AdamConfig):
    type: Literal["adamw"] = key("Adam with decoupled weight decay (Loshchilov & Hutter 2019).")  # type: ignore[assignment]


class SGDConfig(Section):
    type: Literal["sgd"] = key("Stochastic gradient descent with momentum.")
    learning_rate: Positive = key("Learning rate before the schedule's factor.")
    momentum: BelowOne = key("Share of the last update that is kept.", 0.9)
    nesterov: bool = key("Nesterov's momentum; needs a momentum above 0.", False)
    weight_decay: NotNegativeFloat = key("Not on norms and biases.", 0.0)

    @field_validator("nesterov")
    @classmethod
    def _needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise broken_rule("must be false where momentum is 0")
        return nesterov


Optimizer = Annotated[AdamConfig | AdamWConfig | SGDConfig, ByType]

WarmupSteps = Annotated[
    NotNegative,
    Field(description="Steps over which the rate rises with the fourth power of the step."),
]


class StepScheduleConfig(Section):
    type: Literal["step"] = key("A constant factor on the learning rate between milestones.")
    milestones: tuple[AtLeastOne, ...] = key("Steps at which the factor changes, increasing.")
    factors: tuple[NotNegativeFloat, ...] = key(
        "Factor before the first milestone, then after each: one more than milestones."
    )
    warmup_steps: WarmupSteps = 0

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            raise broken_rule("must increase from each to the next")
        return milestones

    @field_validator("factors")
    @classmethod
    def _one_for_each_part(
        cls, factors: tuple[float, ...], info: ValidationInfo
    ) -> tuple[float, ...]:
        milestones = info.data.get("milestones")
        if milestones is not None and len(factors) != len(milestones) + 1:
            raise broken_rule(
                f"must be {len(milestones) + 1} numbers for {len(milestones)} milestones (one "
                f"before the first, then one after each), not {len(factors)}"
            )
        return factors


class CosineRestartsConfig(Section):
    type: Literal["cosine_restarts"] = key("SGDR (Loshchilov & Hutter 2017): cosine with restarts.")
    t_0: AtLeastOne = key("Steps of the first cycle.")
    t_mult: AtLeastOne = key("Factor on the length from cycle to cycle.", 1)
    eta_min: NotNegativeFloat = key("Learning rate at the end of a cycle.", 0.0)
    warmup_steps: WarmupSteps = 0


class OneCycleConfig(Section):
    type: Literal["one_cycle"] = key(
        "Rises to the optimizer's rate, then falls far below the start (Smith & Topin 2018)."
    )
    warm_share: BelowOne = key("Share of the steps over which the rate rises.", 0.3)
    div: Annotated[float, Field(ge=1)] = key("The optimizer's rate over the first one.", 25.0)
    final_div: Annotated[float, Field(ge=1)] = key("The first rate over the last one.", 1e4)
    shape: Literal["linear", "cosine"] = key("How it rises and falls.", "cosine")


class LinearScheduleConfig(Section):
    type: Literal["linear"] = key("Falls linearly to the last step of the training.")
    end_factor: NotNegativeFloat = key("The last rate as a share of the optimizer's.", 0.01)
    warmup_steps: WarmupSteps = 0


class PlateauConfig(Section):
    type: Literal["plateau"] = key("Lowers the rate when the figure stops improving.")
    factor: Annotated[float, Field(gt=0, lt=1)] = key("Multiplies the rate each time.", 0.1)
    patience: NotNegative = key("Evaluations without improvement before the rate falls.", 3)
    threshold: NotNegativeFloat = key("Smallest increase that counts as improvement.", 1e-4)
    min_factor: Fraction = key("The lowest rate as a share of the optimizer's.", 1e-4)
    warmup_steps: WarmupSteps = 0


Schedule = Annotated[
    StepScheduleConfig
    | CosineRestartsConfig
    | OneCycleConfig
    | LinearScheduleConfig
    | PlateauConfig,
    ByType,
]


class EMAConfig(Section):
    decay: Fraction = key("Share of the average kept at each step.", 0.9998)
    ramp: bool = key(
        "The decay rises to that as (1 + step) / (10 + step) (TensorFlow's formula), so that a "
        "short training forgets its start.",
        False,
    )


class FreezeConfig(Section):
    until: str = key(
        "The last frozen part, with all before it: 'encoder' for the whole encoder, or a stage "
        "as scripts/summarise.py names it, such as 'encoder.stages.3'.",
        "encoder",
    )
    batch_norm: Literal["trained", "frozen_part", "whole_network"] = key(
        "Whose batch norms keep scale, shift and statistics: none, the frozen part's, or all.",
        "frozen_part",
    )
    unfreeze_at: AtLeastOne | None = key("The step that unfreezes everything; null is never.", None)


class TrainingConfig(Section):
    steps: AtLeastOne = key("Optimizer steps.")
    batch_size: AtLeastOne = key(
        "Images per optimizer step over all devices; independent of the hardware.", 64
    )
    micro_batch_size: AtLeastOne | Literal["auto"] = Field(
        16,
        validate_default=True,  # against a batch_size that was given
        description="Images per forward pass and device; gradients accumulate to batch_size. "
        "Lower it where memory is short; 'auto' is the most that fits, found at the start.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = key(
        "'auto' is the fastest that the device runs natively.", "auto"
    )
    optimizer: Optimizer = key("What turns gradients into updates.")
    schedule: Schedule = key("The learning rate over the steps.")
    encoder_learning_rate: Positive | None = key("Of the encoder; null is the optimizer's.", None)
    freeze: FreezeConfig | None = key("Parts that keep their weights; null trains all.", None)
    gradient_clip: Positive | None = key("Largest norm of the gradient; null is no limit.", None)
    ema: EMAConfig | None = key("Evaluate a moving average of the weights; null is off.", None)
    patience: AtLeastOne | None = key("Stop after this many evaluations without improvement.", None)
    checkpoint_every: AtLeastOne = key("Steps between two last.pt; evaluations write it too.", 1000)
    max_skipped: AtLeastOne = key(
        "The run ends after this many steps in a row whose loss or gradient is not finite.", 50
    )
    sync_batch_norm: bool = key("Batch norm's statistics over all GPUs, not each one's own.", False)
    compile: bool = key("Compile the model with torch.compile.", False)

    @field_validator("micro_batch_size")
    @classmethod
    def _divides_batch(cls, micro: int | str, info: ValidationInfo) -> int | str:
        batch = info.data.get("batch_size")
        if batch is not None and isinstance(micro, int) and micro < batch and batch % micro:
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
    every: AtLeastOne = key("Steps between evaluations; one more at the end.")
    share: PositiveFraction = key("Share of the validation images to evaluate on.", 1.0)
    backend: Literal["hotcoco", "pycocotools"] = key(
        "Implementation of the COCO metric: equal figures, hotcoco is faster.", "hotcoco"
    )
    conf: Fraction = key("Boxes of a lower score are dropped.", 0.01)
    iou: Fraction = key("Of boxes of one class that overlap more, the best is kept (NMS).", 0.45)
    max_detections: AtLeastOne = key("Boxes per image that are kept.", 300)
    max_candidates: AtLeastOne = key("Boxes per image that enter NMS.", 4096)
    labels: Literal["best_class", "all_classes"] = key(
        "Every class of a box that passes `conf`, as in Darknet; or its best.", "all_classes"
    )
    nms: Literal["greedy", "soft"] = key(
        "soft: overlapping boxes lose score instead (https://arxiv.org/abs/1704.04503).", "greedy"
    )
    metric: Literal["coco", "voc"] = key("The metric that is computed.", "coco")
    both: bool = key("Report the other metric too.", False)
    voc_iou: Fraction = key("IoU from which on the VOC metric takes a box for a truth's.", 0.5)
    fixed_conf: Fraction = key("The VOC metric is also reported for boxes from this score on.", 0.4)
    monitor: Literal[CocoFigure, VocFigure] | None = key(
        "The metric's figure that chooses best.pt; null is AP50 of COCO's, mAP of VOC's.", None
    )
    batch_size: AtLeastOne = key("Images per forward pass.", 16)
    per_class: bool = key("Report AP for each class too.", False)
    pictures: NotNegative = key("Images drawn with predictions and truth.", 8)

    @field_validator("monitor")
    @classmethod
    def _of_its_metric(cls, monitor: str | None, info: ValidationInfo) -> str | None:
        metric = info.data.get("metric")
        if monitor is not None and metric and monitor not in MONITORS_OF_METRIC[metric]:
            allowed = ", ".join(MONITORS_OF_METRIC[metric])
            raise broken_rule(f"must be a figure of the {metric} metric: {allowed}")
        return monitor


class LoggingConfig(Section):
    every: AtLeastOne = key("Steps between two lines of progress.", 20)
    directory: FilePath = key("Folder that holds the runs.", Path("logs"))
