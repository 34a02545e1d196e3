"""The sections `model` and `loss`: what detects, and what it is trained to minimise."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from yolo.config.schema.base import (
    BelowOne,
    ByType,
    FilePath,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Section,
    broken_rule,
    key,
)
from yolo.config.schema.encoders import Encoder

COCO_ANCHORS_PX = (
    *((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    *((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    *((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
"""YOLOv3 (Redmon & Farhadi 2018), section 2.3: k-means on COCO at 416 px, width and height."""

TINY_ANCHORS_PX = (
    *((10.0, 14.0), (23.0, 27.0), (37.0, 58.0)),
    *((81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
)
"""Darknet's ``yolov3-tiny.cfg``."""

YOLOV2_COCO_ANCHORS_PX = (
    *((18.32736, 21.67632), (59.98272, 66.00096), (106.82976, 175.17888)),
    *((252.25024, 112.88896), (312.65664, 293.38496)),
)
"""Darknet's ``yolov2.cfg``, there in cells of 32 pixels."""

HEADS_OF_NECKS = {"yolov3_spp": "yolov3"}
LOSSES_OF_HEADS = {"yolov3_tiny": "yolov3"}
"""Where it is not the one of the same name."""

DECOUPLED = "Classes have layers apart from box and objectness (YOLOX, arXiv 2107.08430, figure 2)."

Anchors = tuple[tuple[Positive, Positive], ...]
AutoAnchors = Literal["auto"]
"""Anchors that are fitted to the training boxes when a training begins."""


class NeckConfig(Section):
    type: Literal["yolov1", "yolov2", "yolov3", "yolov3_spp", "yolov3_tiny"] = key(
        "The neck of YOLOv1 (one map at stride 64), of YOLOv2 (one map at stride 32), of YOLOv3, "
        "of YOLOv3-SPP or of YOLOv3-tiny (strides 16 and 32)."
    )
    width: Literal["paper", "scaled"] | Annotated[float, Field(gt=0, le=8)] = key(
        "Channels: as in the paper, scaled to the encoder's, or a factor on the paper's.", "paper"
    )


class _AnchoredHead(Section):
    type: str
    anchors: Anchors | AutoAnchors
    scale_xy: Annotated[float, Field(ge=1, le=8)] = key(
        "How many cells wide a centre can move around its cell's: above 1 it reaches the border "
        "(YOLOv4, arXiv 2004.10934, 1.05 to 1.2; Darknet's scale_x_y).",
        1.0,
    )

    @field_validator("anchors", check_fields=False)
    @classmethod
    def _ordered_by_area(cls, anchors: Any) -> Any:
        areas = [] if anchors == "auto" else [width * height for width, height in anchors]
        for number, (smaller, larger) in enumerate(pairwise(areas), start=1):
            if larger < smaller:
                raise broken_rule(
                    "must be ordered from small to large by area, and anchor "
                    f"{number + 1} is smaller than anchor {number}"
                )
        return anchors


class YOLOv3HeadConfig(_AnchoredHead):
    type: Literal["yolov3"] = key("The three heads of YOLOv3, with three anchors each.")
    anchors: Annotated[Anchors, Field(min_length=9, max_length=9)] | AutoAnchors = key(
        "Nine anchors [width, height] in pixels of the input image, from small to large: three "
        "for stride 8, 16 and 32 each; 'auto' fits them to the training boxes at the start.",
        COCO_ANCHORS_PX,
    )
    decoupled: bool = key(DECOUPLED, False)


class YOLOv3TinyHeadConfig(_AnchoredHead):
    type: Literal["yolov3_tiny"] = key("The two heads of YOLOv3-tiny, with three anchors each.")
    anchors: Annotated[Anchors, Field(min_length=6, max_length=6)] | AutoAnchors = key(
        "Six anchors [width, height] in pixels of the input image, from small to large: three "
        "for stride 16 and 32 each; 'auto' fits them to the training boxes at the start.",
        TINY_ANCHORS_PX,
    )
    decoupled: bool = key(DECOUPLED, False)


class YOLOv2HeadConfig(_AnchoredHead):
    type: Literal["yolov2"] = key("The head of YOLOv2, with the paper's five anchors or others.")
    anchors: Annotated[Anchors, Field(min_length=1, max_length=9)] | AutoAnchors = key(
        "Anchors [width, height] in pixels of the input image (Darknet's times 32), from small to "
        "large; 'auto' fits five to the training boxes at the start.",
        YOLOV2_COCO_ANCHORS_PX,
    )


class YOLOv1HeadConfig(Section):
    type: Literal["yolov1"] = key("The head of YOLOv1; it works only at data.image_size.")
    end: Literal["local", "connected"] = key(
        "'local': a locally connected layer, then a fully connected one (Darknet's yolov1.cfg); "
        "'connected': two fully connected ones (the paper).",
        "local",
    )
    boxes: Annotated[int, Field(ge=1, le=9)] = key("Per cell: 2 in the paper, 3 in Darknet.", 2)
    dropout: BelowOne = key("Share of the last layer's input that training leaves out.", 0.5)


# A new component joins the union as one more member.
Head = Annotated[
    YOLOv3HeadConfig | YOLOv3TinyHeadConfig | YOLOv2HeadConfig | YOLOv1HeadConfig,
    ByType,
]


class InitConfig(Section):
    weights: FilePath = key(
        "A checkpoint of this project or a detector's .weights file of Darknet; with another "
        "number of classes the head's last layer stays at its initial values."
    )
    min_matched: PositiveFraction = key("Share of the parameters that the file must fill.", 0.5)


Preprocessing = Annotated[
    Literal["unit_range", "imagenet"] | None,
    Field(
        description="Input of the network: 'unit_range' is RGB / 255 (Darknet), 'imagenet' also "
        "takes ImageNet's mean and deviation; null is what the loaded weights were trained with."
    ),
]


class ModelConfig(Section):
    encoder: Encoder = key("Turns images into maps of strides 8, 16 and 32.")
    neck: NeckConfig = key("Mixes the encoder's maps over the scales.")
    head: Head = key("Turns the neck's maps into raw boxes.")
    init: InitConfig | None = key("A whole trained detector to start from; null is none.", None)
    preprocessing: Preprocessing = None

    @model_validator(mode="after")
    def _head_fits_neck(self) -> ModelConfig:
        head = HEADS_OF_NECKS.get(self.neck.type, self.neck.type)
        if self.head.type != head:
            raise broken_rule(f"must be {head!r} behind the neck {self.neck.type!r}", "head.type")
        return self


IgnoreThreshold = Annotated[
    Fraction,
    Field(description="A box without a truth has no objectness loss above this IoU with any."),
]


class _AnchorLoss(Section):
    type: str
    box: Literal["darknet", "iou", "giou", "diou", "ciou"] = key(
        "Loss of position and size: 'darknet' of each number; the others one of the IoU (GIoU: "
        "arXiv 1902.09630; DIoU and CIoU: arXiv 1911.08287).",
        "darknet",
    )
    anchor_iou: Fraction = key(
        "Of 'iou_threshold': the IoU of shapes, with AlexeyAB's advice for his iou_thresh.", 0.213
    )
    anchor_ratio: Annotated[float, Field(gt=1)] = key("Of 'ratio': the factor between sides.", 4.0)
    coord_scale: Positive = key("Factor on the loss of position and size.", 1.0)
    no_object_scale: Positive = key("Factor on the objectness of the others.", 1.0)
    class_scale: Positive = key("Factor on the loss of the classes.", 1.0)
    label_smoothing: BelowOne = key(
        "Share of a truth's class that is given up, half of it with 'bce' (AlexeyAB's "
        "label_smooth_eps), else to all classes alike (Szegedy et al. 2016, section 7).",
        0.0,
    )


OTHER_ASSIGNMENTS = (
    "'iou_threshold', all anchors whose IoU with its shape is above anchor_iou; 'ratio', all whose "
    "sides are within anchor_ratio, else the nearest, in up to three cells (YOLOv5; needs "
    "model.head.scale_xy of 2)."
)
RESCORE = "The target of objectness is the box's IoU with its truth, not 1."


class YOLOv3LossConfig(_AnchorLoss):
    type: Literal["yolov3"] = key("Darknet's loss for YOLOv3.")
    assignment: Literal["best_anchor", "iou_threshold", "ratio"] = key(
        f"What learns a truth: 'best_anchor', one of all anchors (Darknet); {OTHER_ASSIGNMENTS}",
        "best_anchor",
    )
    object_scale: Positive = key("Factor on the objectness of boxes with truth.", 1.0)
    rescore: bool = key(RESCORE, False)
    class_loss: Literal["bce", "cross_entropy"] = key(
        "'bce' lets a box have several classes (the paper), 'cross_entropy' only one.", "bce"
    )
    ignore_threshold: IgnoreThreshold = 0.7
    class_weights: Annotated[dict[str, Positive], Field(min_length=1)] | None = key(
        "Factors on the class loss by class name; classes not named count 1.", None
    )


class YOLOv2LossConfig(_AnchorLoss):
    type: Literal["yolov2"] = key("Darknet's region loss for YOLOv2.")
    assignment: Literal["darknet", "global", "iou_threshold", "ratio"] = key(
        "Several truths in one cell: 'darknet' gives each its best anchor and the last one wins, "
        "'global' gives each anchor once, the best fitting pair first. Several places for a truth: "
        f"{OTHER_ASSIGNMENTS}",
        "darknet",
    )
    ignore_threshold: IgnoreThreshold = 0.6
    object_scale: Positive = key("Factor on the objectness of boxes with truth.", 5.0)
    rescore: bool = key(RESCORE, True)
    prior_images: NotNegative = key(
        "Number of first images whose boxes without a truth are pulled to their anchor.", 12_800
    )


class YOLOv1LossConfig(Section):
    type: Literal["yolov1"] = key("Darknet's detection loss for YOLOv1.")
    coord_scale: Positive = key("Factor on the loss of position and size.", 5.0)
    object_scale: Positive = key("Factor on the objectness of boxes with truth.", 1.0)
    no_object_scale: Positive = key("Factor on the objectness of the others.", 0.5)
    class_scale: Positive = key("Factor on the loss of the classes.", 1.0)
    rescore: bool = key(RESCORE, True)


# A new component joins the union as one more member.
Loss = Annotated[YOLOv3LossConfig | YOLOv2LossConfig | YOLOv1LossConfig, ByType]
