"""Checkpoints of small detectors that find something, without a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.detectors import make_config, save_detector
from yolo.apps.predict import Predictor
from yolo.config import config_from_dict
from yolo.factory.detector import build_detector
from yolo.models.detector import Detector

NAMES = ["circle", "square", "triangle", "star", "ring", "traffic light"]
CONF = 0.1


def write_checkpoint(
    path: Path,
    *,
    encoder: str = "darknet_tiny",
    neck: str = "yolov3",
    image_size: int = 96,
    class_names: Sequence[str] = NAMES,
    content: dict[str, Any] | None = None,
    averaged: bool = False,
    fill: Callable[[Detector, int], object] | None = None,
    **sections: dict[str, Any],
) -> Path:
    """A detector with random weights that ``fill`` changed for its image size, ``spread`` if None.

    ``sections`` (``data={...}``) replace settings of the config, ``content`` entries of the file.
    """
    plain = make_config(encoder, neck, image_size=image_size).model_dump(mode="json")
    plain["evaluation"] |= {"conf": CONF, "batch_size": 4}
    for section, settings in sections.items():
        plain[section] |= settings
    config = config_from_dict(plain)
    detector = build_detector(config, class_names)
    (fill or spread)(detector, image_size)
    shifted = {f"module.{name}": p + 0.01 for name, p in detector.named_parameters()}
    more = {
        "ema": shifted if averaged else None,
        "precision": {"name": "fp32", "reason": "as configured"},
        **(content or {}),
    }
    return save_detector(path, detector, config, class_names, **more)


def make_predictor(path: Path, **settings: Any) -> Predictor:
    """Of a checkpoint, on the CPU, exact."""
    return Predictor.from_checkpoint(path, **{"device": "cpu", "precision": "fp32", **settings})


def spread(detector: nn.Module, image_size: int) -> None:
    """Batch norm's statistics as after a training, and scores that fill the range from 0 to 1."""
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
