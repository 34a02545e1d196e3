"""The sections `model` and `loss`: what detects, and what it is punished for."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from yolo.config.schema.base import FilePath, Fraction, Positive, Section, broken_rule

COCO_ANCHORS_PX = (
    (10.0, 13.0),
    (16.0, 30.0),
    (33.0, 23.0),
    (30.0, 61.0),
    (62.0, 45.0),
    (59.0, 119.0),
    (116.0, 90.0),
    (156.0, 198.0),
    (373.0, 326.0),
)
"""YOLOv3 (Redmon & Farhadi 2018), section 2.3: k-means on COCO at 416 px, width and height."""


class Darknet53Config(Section):
    """YOLOv3's own backbone."""

    type: Literal["darknet53"] = Field(description="Darknet-53, the backbone of the paper.")
    weights: FilePath | None = Field(
        None, description="Weights file to start from; null starts from random weights."
    )


class DarknetTinyConfig(Section):
    """YOLOv3-tiny's backbone with strides 8, 16 and 32."""

    type: Literal["darknet_tiny"] = Field(description="YOLOv3-tiny's backbone, for small machines.")
    width: float = Field(1.0, gt=0, le=2, description="Factor on the number of channels.")
    weights: FilePath | None = Field(
        None, description="Weights file to start from; null starts from random weights."
    )


class MobileNetV3LargeConfig(Section):
    """torchvision's MobileNetV3-large."""

    type: Literal["mobilenet_v3_large"] = Field(description="torchvision's MobileNetV3-large.")
    weights: Literal["imagenet"] | FilePath | None = Field(
        None,
        description="'imagenet' for torchvision's pretrained weights, a weights file, or null.",
    )


class MobileNetV3SmallConfig(Section):
    """torchvision's MobileNetV3-small."""

    type: Literal["mobilenet_v3_small"] = Field(description="torchvision's MobileNetV3-small.")
    weights: Literal["imagenet"] | FilePath | None = Field(
        None,
        description="'imagenet' for torchvision's pretrained weights, a weights file, or null.",
    )


class YOLOv3NeckConfig(Section):
    """YOLOv3's three levels of convolution sets, upsampling and routes."""

    type: Literal["yolov3"] = Field(description="The neck of YOLOv3.")
    width: Literal["paper", "scaled"] | Positive = Field(
        "paper",
        description="Channels: 'paper' as in the paper, 'scaled' to the encoder's, or a factor on "
        "the paper's.",
    )


class YOLOv3HeadConfig(Section):
    """Three detection layers with three anchors each."""

    type: Literal["yolov3"] = Field(description="The three heads of YOLOv3.")
    anchors: tuple[tuple[Positive, Positive], ...] = Field(
        COCO_ANCHORS_PX,
        min_length=9,
        max_length=9,
        description="Nine anchors [width, height] in pixels of the input image, from small to "
        "large: three for stride 8, three for 16, three for 32.",
    )

    @field_validator("anchors")
    @classmethod
    def _from_small_to_large(
        cls, anchors: tuple[tuple[float, float], ...]
    ) -> tuple[tuple[float, float], ...]:
        areas = [width * height for width, height in anchors]
        for index, (smaller, larger) in enumerate(pairwise(areas)):
            if larger < smaller:
                raise broken_rule(
                    "must be ordered from small to large by area, and anchor "
                    f"{index + 2} is smaller than anchor {index + 1}"
                )
        return anchors


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


# A new component joins its union as one more member; Neck, Head and Loss have one member today
# and become `Annotated[YOLOv3NeckConfig | OtherNeckConfig, Field(discriminator="type")]`.
Encoder = Annotated[
    Darknet53Config | DarknetTinyConfig | MobileNetV3LargeConfig | MobileNetV3SmallConfig,
    Field(discriminator="type"),
]
Neck = YOLOv3NeckConfig
Head = YOLOv3HeadConfig
Loss = YOLOv3LossConfig


class ModelConfig(Section):
    """encoder -> neck -> head."""

    encoder: Encoder = Field(description="Turns images into maps of strides 8, 16 and 32.")
    neck: Neck = Field(description="Mixes the encoder's maps over the scales.")
    head: Head = Field(description="Turns the neck's maps into raw boxes.")
