"""Small COCO data sets, written where a test wants them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

WriteCoco = Callable[..., tuple[Path, Path]]


def coco_json() -> dict[str, Any]:
    """Three images (one empty), three categories with gaps and out of order, one crowd box."""
    return {
        "images": [
            {"id": 30, "file_name": "c.jpg", "width": 80, "height": 60},
            {"id": 10, "file_name": "sub/a.jpg", "width": 60, "height": 90},
            {"id": 20, "file_name": "b.jpg", "width": 64, "height": 64},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [5, 6, 20, 30], "iscrowd": 0},
            {"id": 2, "image_id": 30, "category_id": 3, "bbox": [0, 0, 80, 60], "iscrowd": 1},
            {"id": 3, "image_id": 30, "category_id": 90, "bbox": [10.5, 20, 8, 4], "iscrowd": 0},
        ],
        "categories": [
            {"id": 90, "name": "tree"},
            {"id": 3, "name": "cat"},
            {"id": 7, "name": "dog"},
        ],
    }


@pytest.fixture
def write_coco(tmp_path: Path) -> WriteCoco:
    """Writes a json and its noise images; gives the paths of the json and of the folder."""

    def write(data: Any = None) -> tuple[Path, Path]:
        data = coco_json() if data is None else data
        root = tmp_path / "images"
        generator = np.random.default_rng(0)
        for image in coco_json()["images"]:
            path = root / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (image["height"], image["width"], 3)
            cv2.imwrite(str(path), generator.integers(0, 256, size, np.uint8))
        path = tmp_path / "instances.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path, root

    return write


@pytest.fixture
def coco_mini(real_data: Path) -> Path:
    """The folder of 80 + 79 real COCO images."""
    return real_data / "coco-mini"
