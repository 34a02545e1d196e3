"""Detectors for tests, built as a config builds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yolo.config import Config, config_from_dict
from yolo.factory.detector import build_detector
from yolo.models.detector import Detector
from yolo.train.checkpoint import save_checkpoint
from yolo.train.distributed import Ranks

ONE_RANK = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
LOSSES = {"yolov3_spp": "yolov3", "yolov3_tiny": "yolov3"}
HEADS = {"yolov3_spp": "yolov3"}


def make_config(
    encoder: str = "darknet_tiny",
    neck: str = "yolov3",
    *,
    neck_width: str | float = "scaled",
    head: dict[str, Any] | None = None,
    image_size: int = 64,
    data: dict[str, Any] | None = None,
    **encoder_settings: Any,
) -> Config:
    """A whole config around a model; its data set is never opened."""
    nowhere = {"type": "coco", "annotations": "/nowhere.json", "images": "/nowhere"}
    return config_from_dict(
        {
            "model": {
                "encoder": {"type": encoder, **encoder_settings},
                "neck": {"type": neck, "width": neck_width},
                "head": {"type": HEADS.get(neck, neck), **(head or {})},
            },
            "loss": {"type": LOSSES.get(neck, neck)},
            "data": {"train": nowhere, "val": nowhere, "image_size": image_size, **(data or {})},
            "training": {
                "steps": 1,
                "optimizer": {"type": "adam", "learning_rate": 1e-3},
                "schedule": {"type": "step", "milestones": [], "factors": [1]},
            },
            "evaluation": {"every": 1},
        }
    )


def make_detector(
    encoder: str = "darknet_tiny", neck: str = "yolov3", *, classes: int = 4, **settings: Any
) -> Detector:
    """The detector without the config; ``settings`` are those of ``make_config``."""
    names = [f"class {i}" for i in range(classes)]
    return build_detector(make_config(encoder, neck, **settings), names)


def save_detector(
    path: Path, detector: Detector, config: Config, names: Sequence[str], **content: Any
) -> Path:
    """What predicting and exporting read of a checkpoint; ``content`` replaces some of it."""
    content = {
        "config": config.model_dump(mode="json"),
        "class_names": list(names),
        "category_ids": list(range(1, len(names) + 1)),
        "model": detector.state_dict(),
        "ema": None,
        "progress": {"step": 5},
        **content,
    }
    save_checkpoint(path, content)
    return path
