"""Checkpoints of small detectors that find something, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.detectors import make_config, save_detector
from yolo.apps.predict import Predictor
from yolo.config import config_from_dict
from yolo.factory.detector import build_detector

NAMES = ["circle", "square", "triangle", "star", "ring", "traffic light"]
CONF = 0.1


def write_checkpoint(
    path: Path,
    *,
    encoder: str = "darknet_tiny",
    neck: str = "yolov3",
    image_size: int = 96,
    data: dict[str, Any] | None = None,
    class_names: Sequence[str] = NAMES,
    category_ids: Sequence[int] | None = None,
) -> Path:
    """A detector with random weights, spread so that its scores fill the range from 0 to 1."""
    content = make_config(encoder, neck, image_size=image_size).model_dump(mode="json")
    content["data"] |= data or {}
    content["evaluation"] |= {"conf": CONF, "batch_size": 4}
    config = config_from_dict(content)
    detector = build_detector(config, class_names)
    spread(detector, image_size)
    ids = list(category_ids or range(1, len(class_names) + 1))
    precision = {"name": "fp32", "reason": "as configured"}
    more = {"category_ids": ids, "precision": precision}
    return save_detector(path, detector, config, class_names, **more)


def make_predictor(path: Path, **settings: Any) -> Predictor:
    """Of a checkpoint, on the CPU, exact."""
    return Predictor.from_checkpoint(path, **{"device": "cpu", "precision": "fp32", **settings})


def spread(detector: nn.Module, image_size: int) -> None:
    """Batch norm's statistics as after a training, and a last layer that differs by place."""
    generator = torch.Generator().manual_seed(1)
    norms = [layer for layer in detector.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.data.uniform_(0.8, 1.2, generator=generator)
        norm.bias.data.normal_(0, 0.2, generator=generator)
    noise = torch.randint(0, 256, (8, 3, image_size, image_size), generator=generator)
    with torch.no_grad():
        detector.train()(noise.to(torch.uint8))
    for name, layer in detector.named_modules():
        if name.endswith("output") and isinstance(layer, nn.Conv2d | nn.Linear):
            deviation = 2 / layer.weight[0].numel() ** 0.5
            layer.weight.data.normal_(0, deviation, generator=generator)
            layer.bias.data.add_(0.2)
