"""The sections `model` and `loss`: what detects, and what it is punished for."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from yolo.config.schema.base import (
    FilePath,
    Fraction,
    NotNegative,
    Positive,
    Section,
    Share,
    broken_rule,
)

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

TINY_ANCHORS_PX = (
    (10.0, 14.0),
    (23.0, 27.0),
    (37.0, 58.0),
    (81.0, 82.0),
    (135.0, 169.0),
    (344.0, 319.0),
)
"""Darknet's ``yolov3-tiny.cfg``."""

YOLOV2_COCO_ANCHORS_PX = (
    (18.32736, 21.67632),
    (59.98272, 66.00096),
    (106.82976, 175.17888),
    (252.25024, 112.88896),
    (312.65664, 293.38496),
)
"""Darknet's ``yolov2.cfg``, there in cells of 32 pixels."""


FileWeights = Annotated[
    FilePath | None,
    Field(
        description="Weights to start from: a file of Darknet's (.weights, .conv.N), a checkpoint "
        "or other PyTorch file; null starts from random weights."
    ),
]
TorchvisionWeights = Annotated[
    Literal["imagenet"] | FilePath | None,
    Field(description="'imagenet' for torchvision's pretrained weights, a weights file, or null."),
]


class Darknet53Config(Section):
    """YOLOv3's own backbone."""

    type: Literal["darknet53"] = Field(description="Darknet-53, the backbone of the paper.")
    weights: FileWeights = None


class DarknetTinyConfig(Section):
    """YOLOv3-tiny's backbone with strides 8, 16 and 32."""

    type: Literal["darknet_tiny"] = Field(description="YOLOv3-tiny's backbone, for small machines.")
    width: float = Field(1.0, gt=0, le=2, description="Factor on the number of channels.")
    weights: FileWeights = None


class Darknet19Config(Section):
    """YOLOv2's own backbone."""

    type: Literal["darknet19"] = Field(description="Darknet-19, the backbone of YOLOv2.")
    weights: FileWeights = None


class ExtractionConfig(Section):
    """YOLOv1's own backbone."""

    type: Literal["extraction"] = Field(
        description="The 20 convolutions of YOLOv1, which Darknet calls Extraction."
    )
    weights: FileWeights = None


class MobileNetV3LargeConfig(Section):
    """torchvision's MobileNetV3-large."""

    type: Literal["mobilenet_v3_large"] = Field(description="torchvision's MobileNetV3-large.")
    weights: TorchvisionWeights = None


class MobileNetV3SmallConfig(Section):
    """torchvision's MobileNetV3-small."""

    type: Literal["mobilenet_v3_small"] = Field(description="torchvision's MobileNetV3-small.")
    weights: TorchvisionWeights = None


class ResNet18Config(Section):
    """torchvision's ResNet-18."""

    type: Literal["resnet18"] = Field(description="torchvision's ResNet-18.")
    weights: TorchvisionWeights = None


class ResNet50Config(Section):
    """torchvision's ResNet-50."""

    type: Literal["resnet50"] = Field(description="torchvision's ResNet-50.")
    weights: TorchvisionWeights = None


class ResNet101Config(Section):
    """torchvision's ResNet-101."""

    type: Literal["resnet101"] = Field(description="torchvision's ResNet-101.")
    weights: TorchvisionWeights = None


NeckWidth = Literal["paper", "scaled"] | Positive
WIDTH = "Channels: 'paper' as in the paper, 'scaled' to the encoder's, or a factor on the paper's."


class YOLOv3NeckConfig(Section):
    """YOLOv3's three levels of convolution sets, upsampling and routes."""

    type: Literal["yolov3"] = Field(description="The neck of YOLOv3.")
    width: NeckWidth = Field("paper", description=WIDTH)


class YOLOv3SPPNeckConfig(Section):
    """YOLOv3's neck with spatial pyramid pooling at stride 32."""

    type: Literal["yolov3_spp"] = Field(description="The neck of YOLOv3-SPP.")
    width: NeckWidth = Field("paper", description=WIDTH)


class YOLOv3TinyNeckConfig(Section):
    """YOLOv3-tiny's two levels."""

    type: Literal["yolov3_tiny"] = Field(description="The neck of YOLOv3-tiny: strides 16 and 32.")
    width: NeckWidth = Field("paper", description=WIDTH)


class YOLOv2NeckConfig(Section):
    """YOLOv2's convolutions with the passthrough from stride 16."""

    type: Literal["yolov2"] = Field(description="The neck of YOLOv2: one map at stride 32.")
    width: NeckWidth = Field("paper", description=WIDTH)


class YOLOv1NeckConfig(Section):
    """YOLOv1's last four convolutions."""

    type: Literal["yolov1"] = Field(description="The neck of YOLOv1: one map at stride 64.")
    width: NeckWidth = Field("paper", description=WIDTH)


Anchor = tuple[Positive, Positive]


def ordered_by_area(anchors: tuple[Anchor, ...]) -> tuple[Anchor, ...]:
    """The anchors themselves, refused unless each is at least as large as the one before."""
    areas = [width * height for width, height in anchors]
    for index, (smaller, larger) in enumerate(pairwise(areas)):
        if larger < smaller:
            raise broken_rule(
                "must be ordered from small to large by area, and anchor "
                f"{index + 2} is smaller than anchor {index + 1}"
            )
    return anchors


class YOLOv3HeadConfig(Section):
    """Three detection layers with three anchors each."""

    type: Literal["yolov3"] = Field(description="The three heads of YOLOv3.")
    anchors: tuple[Anchor, ...] = Field(
        COCO_ANCHORS_PX,
        min_length=9,
        max_length=9,
        description="Nine anchors [width, height] in pixels of the input image, from small to "
        "large: three for stride 8, three for 16, three for 32.",
    )

    _ordered = field_validator("anchors")(ordered_by_area)


class YOLOv3TinyHeadConfig(Section):
    """Two detection layers with three anchors each."""

    type: Literal["yolov3_tiny"] = Field(description="The two heads of YOLOv3-tiny.")
    anchors: tuple[Anchor, ...] = Field(
        TINY_ANCHORS_PX,
        min_length=6,
        max_length=6,
        description="Six anchors [width, height] in pixels of the input image, from small to "
        "large: three for stride 16, three for 32.",
    )

    _ordered = field_validator("anchors")(ordered_by_area)


class YOLOv2HeadConfig(Section):
    """One detection layer with five dimension priors."""

    type: Literal["yolov2"] = Field(description="The head of YOLOv2.")
    anchors: tuple[Anchor, ...] = Field(
        YOLOV2_COCO_ANCHORS_PX,
        min_length=1,
        max_length=9,
        description="Anchors [width, height] in pixels of the input image (Darknet's times 32), "
        "from small to large; the paper has five.",
    )

    _ordered = field_validator("anchors")(ordered_by_area)


class YOLOv1HeadConfig(Section):
    """The end of YOLOv1: boxes from the whole image at once."""

    type: Literal["yolov1"] = Field(
        description="The end of YOLOv1; it works at data.image_size alone."
    )
    end: Literal["local", "connected"] = Field(
        "local",
        description="'local': a locally connected layer, then a fully connected one (Darknet's "
        "yolov1.cfg); 'connected': two fully connected ones (the paper).",
    )
    boxes: int = Field(2, ge=1, le=9, description="Boxes per cell: 2 in the paper, 3 in Darknet.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="Share of the numbers before the last layer that training leaves out."
    )


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


class InitConfig(Section):
    """A whole detector to start from."""

    weights: FilePath = Field(
        description="A checkpoint of this project or a detector's .weights file of Darknet; with "
        "another number of classes the head's last layer stays at its initial values."
    )
    min_matched: Share = Field(
        0.5, description="Share of the model's parameters that the file must fill at least."
    )


# A new component joins its union as one more member.
Encoder = Annotated[
    Darknet53Config
    | DarknetTinyConfig
    | Darknet19Config
    | ExtractionConfig
    | MobileNetV3LargeConfig
    | MobileNetV3SmallConfig
    | ResNet18Config
    | ResNet50Config
    | ResNet101Config,
    Field(discriminator="type"),
]
Neck = Annotated[
    YOLOv3NeckConfig
    | YOLOv3SPPNeckConfig
    | YOLOv3TinyNeckConfig
    | YOLOv2NeckConfig
    | YOLOv1NeckConfig,
    Field(discriminator="type"),
]
Head = Annotated[
    YOLOv3HeadConfig | YOLOv3TinyHeadConfig | YOLOv2HeadConfig | YOLOv1HeadConfig,
    Field(discriminator="type"),
]
Loss = Annotated[
    YOLOv3LossConfig | YOLOv2LossConfig | YOLOv1LossConfig, Field(discriminator="type")
]

HEADS_OF_NECK = {
    "yolov3": ("yolov3",),
    "yolov3_spp": ("yolov3",),
    "yolov3_tiny": ("yolov3_tiny",),
    "yolov2": ("yolov2",),
    "yolov1": ("yolov1",),
}
LOSS_OF_HEAD = {"yolov3": "yolov3", "yolov3_tiny": "yolov3", "yolov2": "yolov2", "yolov1": "yolov1"}


class ModelConfig(Section):
    """encoder -> neck -> head."""

    encoder: Encoder = Field(description="Turns images into maps of strides 8, 16 and 32.")
    neck: Neck = Field(description="Mixes the encoder's maps over the scales.")
    head: Head = Field(description="Turns the neck's maps into raw boxes.")
    init: InitConfig | None = Field(
        None,
        description="A trained detector to start from; null starts from the encoder's weights.",
    )
    preprocessing: Literal["unit_range", "imagenet"] | None = Field(
        None,
        description="Input of the network: 'unit_range' is RGB / 255 (Darknet), 'imagenet' also "
        "takes ImageNet's mean and deviation; null is what the loaded weights were trained with.",
    )

    @model_validator(mode="after")
    def _head_fits_neck(self) -> ModelConfig:
        heads = HEADS_OF_NECK[self.neck.type]
        if self.head.type not in heads:
            raise broken_rule(
                f"must be {' or '.join(map(repr, heads))} behind the neck {self.neck.type!r}",
                "head.type",
            )
        return self
