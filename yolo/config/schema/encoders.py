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


class DarknetConfig(Section):
    """The backbones of the papers."""

    type: Literal["darknet53", "darknet19", "extraction"] = Field(
        description="Darknet-53, the backbone of YOLOv3; Darknet-19, of YOLOv2; or the 20 "
        "convolutions of YOLOv1, which Darknet calls Extraction."
    )
    weights: FileWeights = None


class DarknetTinyConfig(Section):
    """YOLOv3-tiny's backbone with strides 8, 16 and 32."""

    type: Literal["darknet_tiny"] = Field(description="YOLOv3-tiny's backbone, for small machines.")
    width: float = Field(1.0, gt=0, le=2, description="Factor on the number of channels.")
    weights: FileWeights = None


class TorchvisionConfig(Section):
    """torchvision's classifiers, without their last layers."""

    type: Literal[
        "mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet50", "resnet101"
    ] = Field(description="torchvision's network of that name.")
    weights: TorchvisionWeights = None


# A new encoder joins a list of names above, or the union as one more section.
Encoder = Annotated[
    DarknetConfig | DarknetTinyConfig | TorchvisionConfig, Field(discriminator="type")
]
