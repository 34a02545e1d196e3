"""A small COCO data set of noise images, right in all respects, to be spoiled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.coco_files import write_coco

HEIGHT, WIDTH = 60, 80
IMAGES = 8


def write_split(root: Path, split: str) -> None:
    """Each image has a square cat and a dog twice as long as high somewhere, each larger."""
    rng = np.random.default_rng(len(split))
    boxes = []
    for large in range(1, IMAGES + 1):
        for label, (w, h) in enumerate([(6 + 4 * large,) * 2, (8 * large, 4 * large)]):
            x, y = rng.integers(0, WIDTH - w), rng.integers(0, HEIGHT - h)
            boxes.append((large, label, [x, y, w, h], False))
    pictures = rng.integers(0, 256, (IMAGES, HEIGHT, WIDTH, 3), np.uint8)
    (root / split).mkdir()
    write_coco(root / split, dict(enumerate(pictures, start=1)), boxes, ["cat", "dog"])


def change(root: Path, split: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the annotations of a data set."""
    path = root / split / "annotations.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def overrides(root: Path) -> list[str]:
    """The data of the command line, and a network that takes no time."""
    sets = [
        f"data.{s}={{type: coco, annotations: {root}/{s}/annotations.json, images: {root}/{s}}}"
        for s in ("train", "val")
    ]
    sizes = "data.image_size=64 data.workers=0 model.head.anchors=auto evaluation.batch_size=4"
    training = "training.batch_size=4 training.micro_batch_size=4 training.precision=fp32"
    network = "model.encoder={type: darknet_tiny, width: 0.25}"
    return [*sets, network, *sizes.split(), *training.split()]
