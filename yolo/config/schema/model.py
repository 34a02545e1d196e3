"""The section `model`: what detects."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from yolo.config.schema.base import FilePath, Positive, Section, Share, broken_rule
from yolo.config.schema.encoders import Encoder
from yolo.config.schema.heads import Head

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


# A new component joins the union as one more member.
Neck = Annotated[
    YOLOv3NeckConfig
    | YOLOv3SPPNeckConfig
    | YOLOv3TinyNeckConfig
    | YOLOv2NeckConfig
    | YOLOv1NeckConfig,
    Field(discriminator="type"),
]


class InitConfig(Section):
    """A whole detector to start from."""

    weights: FilePath = Field(
        description="A checkpoint of this project or a detector's .weights file of Darknet; with "
        "another number of classes the head's last layer stays at its initial values."
    )
    min_matched: Share = Field(
        0.5, description="Share of the model's parameters that the file must fill at least."
    )


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
