"""Writes Darknet's text files; `yolo.data.formats.yolo_text` reads them."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from yolo.data.formats.written_content import Content, check_distinct, stem
from yolo.data.formats.yolo_text import IMAGE_SUFFIXES
from yolo.errors import UserError

NAMES = "names.yaml"
LABELS = "labels"


def write_yolo_text(folder: Path, content: Content) -> dict[str, Any]:
    """Write a text file for each image, also for one without boxes, and the classes' names.

    Raises:
        UserError: an image that the format would not find, or that shares its text file.
    """
    _check_images(content)
    check_distinct("the class", content.class_names, "yolo_text refuses repeated names")
    names = json.dumps(list(content.class_names), ensure_ascii=False)  # json is YAML, all quoted
    (folder / NAMES).write_text(f"names: {names}\n", "utf-8")
    sizes_wh = content.annotations.sizes_hw[:, ::-1].astype(np.float64)
    for size_wh, (name, boxes_xyxy_px, labels, _) in zip(sizes_wh, content.images(), strict=True):
        path = folder / LABELS / f"{stem(name)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        low, high = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]
        cxcywh = np.concatenate([(low + high) / 2 / size_wh, (high - low) / size_wh], axis=1)
        lines = [
            f"{label} {' '.join(map(repr, box))}\n"
            for label, box in zip(labels.tolist(), cxcywh.tolist(), strict=True)
        ]
        path.write_text("".join(lines))
    return {
        "type": "yolo_text",
        "images": Path("images"),
        "labels": Path(LABELS),
        "names": Path(NAMES),
    }


def _check_images(content: Content) -> None:
    check_distinct(
        "the image", map(stem, content.names), "yolo_text has one text file for both: rename one"
    )
    for path in map(PurePosixPath, content.names):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            raise UserError(
                f"the image {path}: yolo_text takes images by their suffix "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}) and no hidden ones; rename it first."
            )
