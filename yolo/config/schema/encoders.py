"""The section `model.encoder`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from yolo.config.schema.base import FilePath, Section

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


# A new component joins the union as one more member.
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
