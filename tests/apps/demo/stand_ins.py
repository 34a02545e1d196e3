"""A finder whose boxes can be checked by hand, a checkpoint, and a program that serves a page."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.checkpoints import write_checkpoint
from yolo.records import Detections

NAMES = ("cat", "<b>dog</b>")


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


def write_trained(path: Path, *, averaged: bool = False) -> Path:
    """A checkpoint as training would save it, with an optimizer's state."""
    state = {"optimizer": {"state": {0: torch.zeros(1_000_000)}}, "scaler": {}}
    return write_checkpoint(path, class_names=NAMES, content=state, averaged=averaged)


@contextmanager
def started(command: Sequence[str], **settings: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python program that runs until the block ends, and the first line that it prints."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, *command], stdout=pipe, text=True, **settings)
    try:
        ready, _, _ = select.select([process.stdout], [], [], 120)
        yield process, process.stdout.readline() if ready else ""
    finally:
        process.terminate()
        process.wait()
