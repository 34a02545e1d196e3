"""Writes COCO's json; `yolo.data.formats.coco` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yolo.data.formats.written_content import DIGITS, Content

JSON = "annotations.json"


def write_coco(folder: Path, content: Content) -> dict[str, Any]:
    """Write the json. Image and category ids stay; ignored regions have "iscrowd" 1."""
    sizes = content.annotations.sizes_hw.tolist()
    ids = content.annotations.image_ids.tolist()
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for image_id, (height, width), (name, boxes_xyxy_px, labels, ignored) in zip(
        ids, sizes, content.images(), strict=True
    ):
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for (left, top, right, bottom), label, crowd in zip(
            boxes_xyxy_px.tolist(), labels.tolist(), ignored.tolist(), strict=True
        ):
            size = round(right - left, DIGITS), round(bottom - top, DIGITS)
            entry = {
                "id": len(boxes) + 1,
                "image_id": image_id,
                "category_id": int(content.category_ids[label]),
                "bbox": [left, top, *size],
                "area": round(size[0] * size[1], DIGITS),
                "iscrowd": int(crowd),
            }
            boxes.append(entry)
    by_id = sorted(zip(content.category_ids, content.class_names, strict=True))
    categories = [{"id": int(number), "name": name} for number, name in by_id]
    data = {"images": images, "annotations": boxes, "categories": categories}
    (folder / JSON).write_text(json.dumps(data), "utf-8")
    return {"type": "coco", "annotations": Path(JSON), "images": Path("images")}
