"""Writes one table of boxes; `yolo.data.formats.csv_boxes` reads it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from yolo.data.formats.csv_boxes import HEADER
from yolo.data.formats.written_content import Content, check_distinct, check_plain, decimal

TABLE = "boxes.csv"


def write_csv_boxes(folder: Path, content: Content) -> dict[str, Any]:
    """Write the table with its header; an image without boxes has a line with empty fields.

    Raises:
        UserError: a name that the format cannot hold.
    """
    check_plain("the class", content.class_names, "csv_boxes")
    check_plain("the image", content.names, "csv_boxes")
    check_distinct("the class", content.class_names, "csv_boxes knows classes by their names")
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for name, boxes_xyxy_px, labels, _ in content.images():
            for box, label in zip(boxes_xyxy_px.tolist(), labels.tolist(), strict=True):
                writer.writerow([name, *map(decimal, box), content.class_names[label]])
            if not len(labels):
                writer.writerow([name, *[""] * 5])
    return {"type": "csv_boxes", "boxes": Path(TABLE), "images": Path("images")}
