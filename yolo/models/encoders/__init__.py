"""Encoders, and the closed set of them that a config may name."""

from __future__ import annotations

from collections.abc import Callable

from yolo.models.encoders.darknet import Darknet19, Darknet53, DarknetTiny, Extraction
from yolo.models.encoders.encoder import Encoder
from yolo.models.encoders.torchvision import (
    mobilenet_v3_large,
    mobilenet_v3_small,
    resnet18,
    resnet50,
    resnet101,
)

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "darknet19": Darknet19,
    "darknet53": Darknet53,
    "darknet_tiny": DarknetTiny,
    "extraction": Extraction,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet101": resnet101,
}
"""``type`` in a config -> what builds the encoder with random weights; the section's other settings
are its keyword arguments. Torchvision's weights for a type are named in ``IMAGENET_WEIGHTS``."""

__all__ = ["ENCODERS", "Encoder"]
