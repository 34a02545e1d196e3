"""Encoders, and the closed set of them that a config may name."""

from __future__ import annotations

from collections.abc import Callable

from yolo.models.encoders.darknet53 import darknet53
from yolo.models.encoders.darknet_tiny import darknet_tiny
from yolo.models.encoders.encoder import Encoder
from yolo.models.encoders.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "darknet53": darknet53,
    "darknet_tiny": darknet_tiny,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
}
"""``type`` in a config -> the function that takes its other settings as keyword arguments."""

__all__ = ["ENCODERS", "Encoder"]
