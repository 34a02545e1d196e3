"""The section `model.head`, and the anchors in it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from yolo.config.schema.base import Positive, Section, broken_rule

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

Anchor = tuple[Positive, Positive]
AutoAnchors = Literal["auto"]
"""Anchors that are fitted to the training boxes when a training begins."""


def ordered_by_area(anchors: tuple[Anchor, ...] | AutoAnchors) -> tuple[Anchor, ...] | AutoAnchors:
    """The anchors themselves, refused unless each is at least as large as the one before."""
    if anchors == "auto":
        return anchors
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
    anchors: Annotated[tuple[Anchor, ...], Field(min_length=9, max_length=9)] | AutoAnchors = Field(
        COCO_ANCHORS_PX,
        description="Nine anchors [width, height] in pixels of the input image, from small to "
        "large: three for stride 8, three for 16, three for 32; 'auto' fits them to the training "
        "boxes when a training begins.",
    )

    _ordered = field_validator("anchors")(ordered_by_area)


class YOLOv3TinyHeadConfig(Section):
    """Two detection layers with three anchors each."""

    type: Literal["yolov3_tiny"] = Field(description="The two heads of YOLOv3-tiny.")
    anchors: Annotated[tuple[Anchor, ...], Field(min_length=6, max_length=6)] | AutoAnchors = Field(
        TINY_ANCHORS_PX,
        description="Six anchors [width, height] in pixels of the input image, from small to "
        "large: three for stride 16, three for 32; 'auto' fits them to the training boxes when a "
        "training begins.",
    )

    _ordered = field_validator("anchors")(ordered_by_area)


class YOLOv2HeadConfig(Section):
    """One detection layer with five dimension priors."""

    type: Literal["yolov2"] = Field(description="The head of YOLOv2.")
    anchors: Annotated[tuple[Anchor, ...], Field(min_length=1, max_length=9)] | AutoAnchors = Field(
        YOLOV2_COCO_ANCHORS_PX,
        description="Anchors [width, height] in pixels of the input image (Darknet's times 32), "
        "from small to large; the paper has five, and 'auto' fits five to the training boxes when "
        "a training begins.",
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


# A new component joins the union as one more member.
Head = Annotated[
    YOLOv3HeadConfig | YOLOv3TinyHeadConfig | YOLOv2HeadConfig | YOLOv1HeadConfig,
    Field(discriminator="type"),
]
