"""Encoders, and the closed set of them that a config may name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torchvision import models as tv

from yolo.models.encoders.darknet import Darknet19, Darknet53, DarknetTiny, Extraction
from yolo.models.encoders.encoder import Encoder
from yolo.models.encoders.torchvision import MobileNetV3, ResNet

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "darknet19": Darknet19,
    "darknet53": Darknet53,
    "darknet_tiny": DarknetTiny,
    "extraction": Extraction,
    "mobilenet_v3_large": partial(MobileNetV3, tv.mobilenet_v3_large, (6, 12, 16), (40, 112, 960)),
    "mobilenet_v3_small": partial(MobileNetV3, tv.mobilenet_v3_small, (3, 8, 12), (24, 48, 576)),
    "resnet18": partial(ResNet, tv.resnet18, (128, 256, 512)),
    "resnet50": partial(ResNet, tv.resnet50, (512, 1024, 2048)),
    "resnet101": partial(ResNet, tv.resnet101, (512, 1024, 2048)),
}
"""``type`` in a config -> what builds the encoder with random weights; the section's other settings
are its keyword arguments. Torchvision's weights for a type are named in ``IMAGENET_WEIGHTS``."""

__all__ = ["ENCODERS", "Encoder"]
