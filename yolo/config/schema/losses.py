"""The section `loss`: what a detector is punished for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from yolo.config.schema.base import Fraction, NotNegative, Positive, Section


class YOLOv3LossConfig(Section):
    """Darknet's loss for YOLOv3."""

    type: Literal["yolov3"] = Field(description="The loss of YOLOv3.")
    class_loss: Literal["bce", "cross_entropy"] = Field(
        "bce",
        description="'bce' lets a box have several classes (the paper), 'cross_entropy' only one.",
    )
    ignore_threshold: Fraction = Field(
        0.7,
        description="A box without a truth is not punished for its objectness where its best IoU "
        "with any truth passes this.",
    )
    class_weights: dict[str, Positive] | None = Field(
        None,
        min_length=1,
        description="Factors on the class loss by class name; classes not named count 1.",
    )


class YOLOv2LossConfig(Section):
    """Darknet's region loss."""

    type: Literal["yolov2"] = Field(description="The loss of YOLOv2.")
    assignment: Literal["darknet", "global"] = Field(
        "darknet",
        description="Several truths in one cell: 'darknet' gives each its best anchor and the last "
        "one wins, 'global' gives each anchor once, the best fitting pair first.",
    )
    ignore_threshold: Fraction = Field(
        0.6,
        description="A box without a truth is not punished for its objectness where its best IoU "
        "with any truth passes this.",
    )
    coord_scale: Positive = Field(1.0, description="Factor on the loss of position and size.")
    object_scale: Positive = Field(5.0, description="Factor on the objectness of boxes with truth.")
    no_object_scale: Positive = Field(1.0, description="Factor on the objectness of the others.")
    class_scale: Positive = Field(1.0, description="Factor on the loss of the classes.")
    rescore: bool = Field(
        True, description="The objectness to learn is the box's IoU with its truth, not 1."
    )
    prior_images: NotNegative = Field(
        12_800,
        description="Over so many images boxes without a truth are drawn to their anchor.",
    )


class YOLOv1LossConfig(Section):
    """Darknet's detection loss."""

    type: Literal["yolov1"] = Field(description="The loss of YOLOv1.")
    coord_scale: Positive = Field(5.0, description="Factor on the loss of position and size.")
    object_scale: Positive = Field(1.0, description="Factor on the objectness of boxes with truth.")
    no_object_scale: Positive = Field(0.5, description="Factor on the objectness of the others.")
    class_scale: Positive = Field(1.0, description="Factor on the loss of the classes.")
    rescore: bool = Field(
        True, description="The objectness to learn is the box's IoU with its truth, not 1."
    )


# A new component joins the union as one more member.
Loss = Annotated[
    YOLOv3LossConfig | YOLOv2LossConfig | YOLOv1LossConfig, Field(discriminator="type")
]
