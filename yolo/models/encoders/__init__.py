"""Encoders, and the closed set of them that a config may name."""

from __future__ import annotations

from collections.abc import Callable

from yolo.models.encoders.darknet19 import darknet19
from yolo.models.encoders.darknet53 import darknet53
from yolo.models.encoders.darknet_tiny import darknet_tiny
from yolo.models.encoders.encoder import Encoder
from yolo.models.encoders.extraction import extraction
from yolo.models.encoders.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from yolo.models.encoders.resnet import resnet18, resnet50, resnet101

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "darknet19": darknet19,
    "darknet53": darknet53,
    "darknet_tiny": darknet_tiny,
    "extraction": extraction,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet101": resnet101,
}
"""``type`` in a config -> the function that takes its other settings as keyword arguments."""

__all__ = ["ENCODERS", "Encoder"]
