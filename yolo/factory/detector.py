"""The networks of both tasks, and a detector's coder, loss and suppression, from a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from torch import nn

from yolo.config import ClassificationConfig, Config
from yolo.config.schema.classification import ClassifierConfig
from yolo.config.schema.encoders import Encoder
from yolo.config.schema.model import (
    Head,
    ModelConfig,
    YOLOv1HeadConfig,
    YOLOv1LossConfig,
    YOLOv2HeadConfig,
    YOLOv2LossConfig,
    YOLOv3LossConfig,
)
from yolo.detection import assign
from yolo.detection.coders import AnchorCoder, GridCoder
from yolo.detection.losses.anchor import AnchorSettings
from yolo.detection.losses.yolov1 import YOLOv1Loss
from yolo.detection.losses.yolov2 import YOLOv2Loss
from yolo.detection.losses.yolov3 import YOLOv3Loss
from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError
from yolo.models import encoders
from yolo.models.detector import Classifier, Detector
from yolo.models.encoders import ENCODERS
from yolo.models.heads import YOLOv1Head, YOLOv2Head, YOLOv3Head
from yolo.models.layers import IMAGENET, UNIT_RANGE, Preprocessing
from yolo.models.necks import NECKS, Neck

PREPROCESSING = {"unit_range": UNIT_RANGE, "imagenet": IMAGENET}

STRIDES_PX = {"yolov3": (8, 16, 32), "yolov3_tiny": (16, 32), "yolov2": (32,), "yolov1": (64,)}
"""Pixels per cell of each raw map, by the type of the head."""

FITTED_ANCHORS = {"yolov3": 9, "yolov3_tiny": 6, "yolov2": 5}
"""How many ``anchors: auto`` are, by the type of the head."""

Coder = AnchorCoder | GridCoder
DetectionLoss = YOLOv1Loss | YOLOv2Loss | YOLOv3Loss
LOSSES = {"yolov1": YOLOv1Loss, "yolov2": YOLOv2Loss, "yolov3": YOLOv3Loss}


def build_detector(config: Config, class_names: Sequence[str]) -> Detector:
    """The detector with random weights, decided by the config's seed; no data is needed."""
    torch.manual_seed(config.seed)
    model = config.model
    encoder = _build_encoder(model.encoder)
    neck = NECKS[model.neck.type](in_channels=encoder.out_channels, width=model.neck.width)
    head = _build_head(config, neck, len(class_names))
    return Detector(encoder=encoder, neck=neck, head=head, preprocessing=_preprocessing_of(model))


def build_classifier(config: ClassificationConfig, class_names: Sequence[str]) -> Classifier:
    """The classifier with random weights, decided by the config's seed; no data is needed."""
    torch.manual_seed(config.seed)
    return Classifier(
        encoder=_build_encoder(config.model.encoder),
        classes=len(class_names),
        dropout=config.model.dropout,
        preprocessing=_preprocessing_of(config.model),
    )


def _build_encoder(config: Encoder) -> encoders.Encoder:
    """With random weights; ``weights`` is read by ``load_initial_weights``."""
    file = "yolo/models/encoders/__init__.py"
    assert config.type in ENCODERS, f"{config.type} of the schema is not in ENCODERS, in {file}"
    return ENCODERS[config.type](**config.model_dump(exclude={"type", "weights"}))


def _preprocessing_of(model: ModelConfig | ClassifierConfig) -> Preprocessing | None:
    """What the config demands; None leaves it to the weights and the encoder."""
    return None if model.preprocessing is None else PREPROCESSING[model.preprocessing]


def _build_head(config: Config, neck: Neck, classes: int) -> nn.Module:
    head, channels = config.model.head, neck.out_channels
    if isinstance(head, YOLOv1HeadConfig):
        settings = head.model_dump(exclude={"type"})
        return YOLOv1Head(in_channels=channels, cells=_cells(config), classes=classes, **settings)
    anchors_per_cell = count_anchors(head) // len(STRIDES_PX[head.type])
    if isinstance(head, YOLOv2HeadConfig):
        return YOLOv2Head(in_channels=channels, anchors_per_cell=anchors_per_cell, classes=classes)
    return YOLOv3Head(
        in_channels=channels,
        hidden_channels=neck.head_channels,
        strides_px=neck.strides_px,
        anchors_per_cell=anchors_per_cell,
        classes=classes,
        decoupled=head.decoupled,
    )


def _cells(config: Config) -> int:
    """Cells per side of a YOLOv1 head."""
    return config.data.image_size // STRIDES_PX["yolov1"][0]


def count_anchors(head: Head) -> int:
    """All anchors of a head, also where they are yet to be fitted; 0 for YOLOv1."""
    if isinstance(head, YOLOv1HeadConfig):
        return 0
    return FITTED_ANCHORS[head.type] if head.anchors == "auto" else len(head.anchors)


def anchors_px(config: Config) -> list[list[float]]:
    """Widths and heights from small to large; none for YOLOv1. ``settle_anchors`` ends "auto"."""
    head = config.model.head
    if isinstance(head, YOLOv1HeadConfig):
        return []
    assert head.anchors != "auto", "anchors are numbers once settle_anchors has seen the data"
    return [list(anchor) for anchor in head.anchors]


def build_coder(config: Config) -> Coder:
    """Between raw maps and boxes; anchors from small to large are shared out to the strides."""
    head, loss = config.model.head, config.loss
    strides, anchors = STRIDES_PX[head.type], anchors_px(config)
    if isinstance(head, YOLOv1HeadConfig):
        return GridCoder(cells=_cells(config), boxes=head.boxes, stride_px=strides[0])
    per_level = len(anchors) // len(strides)
    exclusive = not isinstance(loss, YOLOv3LossConfig) or loss.class_loss == "cross_entropy"
    return AnchorCoder(
        anchors_px=[anchors[i : i + per_level] for i in range(0, len(anchors), per_level)],
        stride_px=strides,
        class_activation="softmax" if exclusive else "sigmoid",
        scale_xy=head.scale_xy,
    )


def build_loss(config: Config, coder: Coder, class_names: Sequence[str]) -> DetectionLoss:
    """The loss of the head's generation; a weight for a class that is not there is a UserError."""
    rule = {"assignment", "anchor_iou", "anchor_ratio"}
    arguments = config.loss.model_dump(exclude={"type", *rule})
    if not isinstance(config.loss, YOLOv1LossConfig):
        arguments["assign"] = _assignment(config.loss)
        shared = {field.name: arguments.pop(field.name) for field in fields(AnchorSettings)}
        arguments["settings"] = AnchorSettings(**shared)
    if (weights := arguments.get("class_weights")) is not None:
        unknown = sorted(set(weights) - set(class_names))
        if unknown:
            raise UserError(
                f"loss.class_weights names {', '.join(unknown)}, which the data set does not have; "
                f"its classes are {', '.join(class_names)}"
            )
        arguments["class_weights"] = [weights.get(name, 1.0) for name in class_names]
    loss: DetectionLoss = LOSSES[config.loss.type](coder=coder, **arguments)
    return loss


def _assignment(loss: YOLOv2LossConfig | YOLOv3LossConfig) -> assign.Assign:
    rules: dict[str, assign.Assign] = {
        "darknet": assign.assign_best_anchor,
        "best_anchor": assign.assign_best_anchor,
        "global": assign.assign_greedily,
        "iou_threshold": partial(assign.assign_by_shape_iou, threshold=loss.anchor_iou),
        "ratio": partial(assign.assign_by_ratio, factor=loss.anchor_ratio),
    }
    return rules[loss.assignment]


def build_postprocess(config: Config, *, conf: float | None = None) -> Postprocess:
    """The suppression as configured; ``conf`` replaces the confidence that it asks for."""
    names = {"conf", "iou", "max_detections", "max_candidates", "labels"}
    settings = config.evaluation.model_dump(include=names)
    settings["suppression"] = config.evaluation.nms
    return Postprocess(**settings | ({} if conf is None else {"conf": conf}))


def check_yolov1_size(path: Path, config: Config, asked_px: int | None, advice: str) -> None:
    """Refuse another input size (None is any) for a YOLOv1, whose end has its own built in.

    The error's sentence ends with the advice.
    """
    trained_px = config.data.image_size
    if config.model.head.type == "yolov1" and asked_px != trained_px:
        raise UserError(
            f"{path}: the end of a YOLOv1 works at the {trained_px} px alone that it was trained "
            f"at{advice}"
        )
