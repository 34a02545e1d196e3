"""Small COCO data sets for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

Box = tuple[int, int, Sequence[float], bool]
"""Image id, label, [x, y, width, height], crowd."""


def coco_truth(
    sizes_hw: Mapping[int, tuple[int, int]],
    rows: Iterable[tuple[int, int, Sequence[float], bool]],
    categories: Mapping[int, str],
) -> dict[str, list]:
    """What a COCO json holds; rows are image, category, box as xyxy in pixels, and crowd."""
    return {
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in sizes_hw.items()],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float((x2 - x1) * (y2 - y1)),
                "iscrowd": int(crowd),
            }
            for number, (image, category, (x1, y1, x2, y2), crowd) in enumerate(rows, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
    }


def write_coco(
    folder: Path,
    pictures: Mapping[int, np.ndarray],
    boxes: Iterable[Box],
    names: Sequence[str] = ("cat",),
    file_name: str = "{}.png",
) -> dict[str, str]:
    """Write images by id and a json of their boxes; returns the data of a config.

    Category ids are labels + 1.
    """
    for number, picture in pictures.items():
        assert cv2.imwrite(str(folder / file_name.format(number)), picture)
    truth = {
        "images": [
            {"id": n, "file_name": file_name.format(n), "width": p.shape[1], "height": p.shape[0]}
            for n, p in pictures.items()
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": label + 1, "bbox": box, "iscrowd": crowd}
            for n, (image, label, box, crowd) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, start=1)],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(truth, default=int))
    return {"type": "coco", "annotations": str(path), "images": str(folder)}
