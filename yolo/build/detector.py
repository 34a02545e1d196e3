"""The network, its coder, its loss and its suppression from a config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from yolo.coders.anchor import AnchorCoder
from yolo.config import Config
from yolo.errors import UserError
from yolo.losses.yolov3 import YOLOv3Loss
from yolo.models.detector import Detector
from yolo.models.encoders import ENCODERS
from yolo.models.yolov3 import yolov3
from yolo.postprocess import Postprocess

STRIDES_PX = (8, 16, 32)


def build_detector(
    config: Config, class_names: Sequence[str], *, pretrained: bool = True
) -> Detector:
    """The detector, its initial weights decided by the config's seed; no data is needed.

    Args:
        config: the whole config.
        class_names: of the data set; their number sizes the head.
        pretrained: read the encoder's weights if the config names some; a checkpoint that brings
            its own needs none.
    """
    torch.manual_seed(config.seed)
    settings = config.model.encoder.model_dump()
    if not pretrained:
        settings["weights"] = None
    encoder = ENCODERS[settings.pop("type")](**settings)
    return yolov3(encoder=encoder, classes=len(class_names), neck_width=config.model.neck.width)


def build_coder(config: Config) -> AnchorCoder:
    """Anchors come as nine pairs, from small to large: three for each stride."""
    anchors = config.model.head.anchors
    per_level = len(anchors) // len(STRIDES_PX)
    levels = [anchors[i : i + per_level] for i in range(0, len(anchors), per_level)]
    softmax = config.loss.class_loss == "cross_entropy"
    return AnchorCoder(
        anchors_px=levels,
        stride_px=STRIDES_PX,
        class_activation="softmax" if softmax else "sigmoid",
    )


def build_loss(config: Config, coder: AnchorCoder, class_names: Sequence[str]) -> YOLOv3Loss:
    """The loss; weights of classes are given by name.

    Raises:
        UserError: a weight for a class that the data set does not have.
    """
    weights = config.loss.class_weights
    if weights is not None:
        unknown = sorted(set(weights) - set(class_names))
        if unknown:
            raise UserError(
                f"loss.class_weights names {', '.join(unknown)}, which the data set does not have; "
                f"its classes are {', '.join(class_names)}"
            )
    return YOLOv3Loss(
        coder=coder,
        class_loss=config.loss.class_loss,
        ignore_threshold=config.loss.ignore_threshold,
        class_weights=None if weights is None else [weights.get(n, 1.0) for n in class_names],
    )


def build_postprocess(config: Config, **changes: Any) -> Postprocess:
    """The suppression as configured; ``changes`` replace settings by name."""
    evaluation = config.evaluation
    settings = {
        "conf": evaluation.conf,
        "iou": evaluation.iou,
        "max_detections": evaluation.max_detections,
        "max_candidates": evaluation.max_candidates,
        "labels": evaluation.labels,
    }
    return Postprocess(**{**settings, **changes})
