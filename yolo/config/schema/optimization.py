"""The optimizer and the schedule of its learning rate, in the section `training`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from yolo.config.schema.base import (
    AtLeastOne,
    BelowOne,
    Fraction,
    NotNegative,
    NotNegativeFloat,
    Positive,
    Section,
    broken_rule,
)

WarmupSteps = Annotated[
    NotNegative,
    Field(description="Steps over which the rate rises with the fourth power of the step."),
]


class AdamConfig(Section):
    """Kingma & Ba 2015."""

    type: Literal["adam"] = Field(description="Adam; its weight decay is an L2 term.")
    learning_rate: Positive = Field(description="Learning rate before the schedule's factor.")
    weight_decay: NotNegativeFloat = Field(0.0, description="Not on norms and biases.")
    betas: tuple[BelowOne, BelowOne] = Field(
        (0.9, 0.999), description="Decay of the running means of gradient and squared gradient."
    )


class AdamWConfig(AdamConfig):
    """Loshchilov & Hutter 2019."""

    type: Literal["adamw"] = Field(description="Adam with decoupled weight decay.")  # type: ignore[assignment]


class SGDConfig(Section):
    """Stochastic gradient descent."""

    type: Literal["sgd"] = Field(description="SGD with momentum.")
    learning_rate: Positive = Field(description="Learning rate before the schedule's factor.")
    momentum: BelowOne = Field(0.9, description="Share of the last update that is kept.")
    nesterov: bool = Field(False, description="Nesterov's momentum; needs a momentum above 0.")
    weight_decay: NotNegativeFloat = Field(0.0, description="Not on norms and biases.")

    @field_validator("nesterov")
    @classmethod
    def _needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise broken_rule("must be false where momentum is 0")
        return nesterov


Optimizer = Annotated[AdamConfig | AdamWConfig | SGDConfig, Field(discriminator="type")]


class StepScheduleConfig(Section):
    """A factor on the learning rate that changes at milestones."""

    type: Literal["step"] = Field(description="A constant factor between milestones.")
    milestones: tuple[AtLeastOne, ...] = Field(
        description="Steps at which the factor changes, increasing."
    )
    factors: tuple[NotNegativeFloat, ...] = Field(
        description="Factor on the learning rate before the first milestone, then after each: "
        "one more than milestones."
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
    def _one_more_than_milestones(
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
    """SGDR (Loshchilov & Hutter 2017)."""

    type: Literal["cosine_restarts"] = Field(description="Cosine annealing with warm restarts.")
    t_0: AtLeastOne = Field(description="Steps of the first cycle.")
    t_mult: AtLeastOne = Field(1, description="Factor on the length from cycle to cycle.")
    eta_min: NotNegativeFloat = Field(0.0, description="Learning rate at the end of a cycle.")
    warmup_steps: WarmupSteps = 0


class OneCycleConfig(Section):
    """The 1cycle policy (Smith & Topin 2018) over all steps of the training."""

    type: Literal["one_cycle"] = Field(
        description="Rises to the optimizer's learning rate, then falls far below the start."
    )
    warm_share: BelowOne = Field(0.3, description="Share of the steps over which the rate rises.")
    div: Annotated[float, Field(ge=1)] = Field(
        25.0, description="The first rate is the optimizer's divided by this."
    )
    final_div: Annotated[float, Field(ge=1)] = Field(
        1e4, description="The last rate is the first divided by this."
    )
    shape: Literal["linear", "cosine"] = Field("cosine", description="How it rises and falls.")


class LinearScheduleConfig(Section):
    """A straight line over all steps of the training."""

    type: Literal["linear"] = Field(description="Falls in a straight line to the last step.")
    end_factor: NotNegativeFloat = Field(
        0.01, description="The last rate as a share of the optimizer's."
    )
    warmup_steps: WarmupSteps = 0


class PlateauConfig(Section):
    """Falls where the monitored figure no longer rises."""

    type: Literal["plateau"] = Field(
        description="The rate is lowered after evaluations without a better figure."
    )
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="What the rate is multiplied with each time."
    )
    patience: NotNegative = Field(
        3, description="Evaluations without a better figure that are let pass."
    )
    threshold: NotNegativeFloat = Field(
        1e-4, description="A figure is better only where it is higher by more than this."
    )
    min_factor: Fraction = Field(1e-4, description="The lowest rate as a share of the optimizer's.")
    warmup_steps: WarmupSteps = 0


Schedule = Annotated[
    StepScheduleConfig
    | CosineRestartsConfig
    | OneCycleConfig
    | LinearScheduleConfig
    | PlateauConfig,
    Field(discriminator="type"),
]
