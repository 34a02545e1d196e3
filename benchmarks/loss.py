"""The loss alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.figures import Figure, Goal, Settings
from benchmarks.timing import take_turns, wait_for
from benchmarks.training import BOXES_PER_IMAGE, CLASSES, random_batch
from yolo.config.schema.model import COCO_ANCHORS_PX
from yolo.detection.coders import AnchorCoder
from yolo.detection.losses.yolov3 import YOLOv3Loss
from yolo.factory.detector import STRIDES_PX

ANCHORS_PER_CELL = 3
CALLS = 10
"""In each round: a single one is shorter than the pauses of a scheduler."""

FORWARD_MS = Goal("at most", 15)


def measure_loss(settings: Settings) -> Iterator[Figure]:
    """Forward, and forward with backward, of YOLOv3's loss on maps like a network's."""
    images, size_px = (2, 64) if settings.tiny else (8, 416)
    targets = random_batch(images, size_px).targets.to(settings.device)
    raw = _maps(images, size_px, settings.device)
    levels = [COCO_ANCHORS_PX[i : i + ANCHORS_PER_CELL] for i in (0, 3, 6)]
    coder = AnchorCoder(anchors_px=levels, stride_px=STRIDES_PX["yolov3"])
    loss = YOLOv3Loss(coder=coder).to(settings.device)

    def forward() -> None:
        for _ in range(CALLS):
            loss(raw, targets, images)
        wait_for(settings.device)

    def forward_and_backward() -> None:
        for _ in range(CALLS):
            torch.stack(list(loss(raw, targets, images).values())).sum().backward()
            for values in raw:
                values.grad = None
        wait_for(settings.device)

    seconds = take_turns(
        {"forward": forward, "forward and backward": forward_and_backward}, rounds=settings.rounds
    )
    sizes = f"{size_px} px, batch {images}, {images * BOXES_PER_IMAGE} boxes"
    for name, goal in (("forward", FORWARD_MS), ("forward and backward", None)):
        time_ms = seconds.median(name) / CALLS * 1000
        yield Figure(f"{name}, {sizes}", time_ms, "ms", None if settings.tiny else goal)


def _maps(images: int, size_px: int, device: torch.device) -> list[torch.Tensor]:
    """Three raw maps (B, A, H, W, 5 + K) in the memory layout that the head gives them."""
    fields = 5 + len(CLASSES)
    torch.manual_seed(0)
    maps = []
    for stride in STRIDES_PX["yolov3"]:
        cells = size_px // stride
        values = torch.randn(images, cells, cells, ANCHORS_PER_CELL, fields, device=device)
        maps.append(values.permute(0, 3, 1, 2, 4).requires_grad_())  # (B, H, W, A, 5 + K) -> ...
    return maps
