"""A finder whose boxes can be checked by hand, and a checkpoint of a small random detector."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from tests.detectors import make_config
from yolo.factory.detector import build_detector
from yolo.records import Detections
from yolo.train.checkpoint import save_checkpoint

NAMES = ("cat", "<b>dog</b>")
SIZE_PX = 96


class QuarterFinder:
    """Finds a cat in the upper left quarter (0.9) and a dog in the whole picture (0.4)."""

    class_names = NAMES

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def __call__(self, images, *, conf, iou):
        self.asked.append((conf, iou))
        height, width = images[0].shape[:2]
        boxes = torch.tensor([[0, 0, width / 2, height / 2], [0, 0, width, height]])
        found = Detections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([0, 1]))
        return [SimpleNamespace(detections=found.above(conf))]


def explain(image):
    """Two "maps": the picture upside down and its negative."""
    return [(image[::-1].copy(), "stride8"), (255 - image, "stride16")]


def write_checkpoint(path: Path, *, averaged: bool = False) -> Path:
    """A detector with random weights, as training would save it, with an optimizer's state."""
    config = make_config(image_size=SIZE_PX, width=0.25)
    torch.manual_seed(0)
    detector = build_detector(config, NAMES)
    weights = detector.state_dict()
    for name in weights:
        if name.endswith("output.bias"):
            weights[name].zero_()  # scores around 1/4, not those of an untrained network's start
    shifted = {f"module.{name}": p + 0.01 for name, p in detector.named_parameters()}
    content = {
        "config": config.model_dump(mode="json"),
        "class_names": list(NAMES),
        "category_ids": [1, 2],
        "model": weights,
        "ema": shifted if averaged else None,
        "optimizer": {"state": {0: torch.zeros(1_000_000)}},
        "scaler": {},
        "progress": {"step": 5},
    }
    save_checkpoint(path, content)
    return path
