"""The section `model.encoder`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from yolo.config.schema.base import ByType, FilePath, Section, key

FileWeights = Annotated[
    FilePath | None,
    Field(
        description="Weights to start from: a file of Darknet's (.weights, .conv.N), a checkpoint "
        "or other PyTorch file; null starts from random weights."
    ),
]


class DarknetConfig(Section):
    type: Literal["darknet53", "darknet19", "extraction"] = key(
        "The backbone of YOLOv3, of YOLOv2, or of YOLOv1 (its first 20 convolutions)."
    )
    weights: FileWeights = None


class DarknetTinyConfig(Section):
    type: Literal["darknet_tiny"] = key("YOLOv3-tiny's backbone, with strides 8, 16 and 32.")
    width: Annotated[float, Field(gt=0, le=2)] = key("Factor on the number of channels.", 1.0)
    weights: FileWeights = None


class TorchvisionConfig(Section):
    type: Literal[
        "mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet50", "resnet101"
    ] = key("torchvision's classifier of that name, without its last layers.")
    weights: Literal["imagenet"] | FilePath | None = key(
        "'imagenet' for torchvision's pretrained weights, a weights file, or null.", None
    )


# A new encoder joins a list of names above, or the union as one more section.
Encoder = Annotated[DarknetConfig | DarknetTinyConfig | TorchvisionConfig, ByType]
