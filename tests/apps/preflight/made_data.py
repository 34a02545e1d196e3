"""A small COCO data set of noise images, right in all respects, to be spoiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZE_HW = (60, 80)
IMAGES = 8
NAMES = ("cat", "dog")


def made_json(split: str) -> dict[str, Any]:
    """Each image has a square cat and a dog twice as long as high somewhere, each larger."""
    height, width = SIZE_HW
    rng = np.random.default_rng(len(split))
    images = [
        {"id": i, "file_name": f"{i}.png", "height": height, "width": width}
        for i in range(1, IMAGES + 1)
    ]
    annotations = []
    for image in images:
        large = image["id"]
        for category, (w, h) in enumerate([(6 + 4 * large,) * 2, (8 * large, 4 * large)], start=1):
            x, y = rng.integers(0, width - w), rng.integers(0, height - h)
            box = [int(x), int(y), w, h]
            number = len(annotations) + 1
            annotations.append(
                {"id": number, "image_id": image["id"], "category_id": category, "bbox": box}
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_split(root: Path, split: str, data: dict[str, Any]) -> None:
    """Write a json, and a noise image for each of its entries that has none yet."""
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(split))
    for image in data["images"]:
        path = folder / image["file_name"]
        pixels = rng.integers(0, 256, (*SIZE_HW, 3), np.uint8)
        if not path.exists():
            cv2.imwrite(str(path), pixels)
    (root / f"{split}.json").write_text(json.dumps(data))


def overrides(root: Path) -> list[str]:
    """The data of the command line, and a network that takes no time."""
    data = {
        split: f"{{type: coco, annotations: {root}/{split}.json, images: {root}/{split}}}"
        for split in ("train", "val")
    }
    return [
        *(f"data.{split}={spec}" for split, spec in data.items()),
        "data.image_size=64",
        "data.workers=0",
        "model.encoder={type: darknet_tiny, width: 0.25}",
        "model.head.anchors=auto",
        "training.batch_size=4",
        "training.micro_batch_size=4",
        "training.precision=fp32",
        "evaluation.batch_size=4",
    ]
