"""Data sets in COCO's format: a json of boxes and a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.formats.coco_json import CocoTable, read_json, to_table
from yolo.data.formats.detection import DetectionDataset, Findings, first_names
from yolo.data.formats.mending import pack_mended
from yolo.errors import UserError


class CocoDataset(DetectionDataset):
    """A COCO json with its image folder.

    Boxes are clipped to their image; those without an area or with a number that is not finite
    are dropped. Crowd boxes become ignored regions. Images without boxes stay.

    Args:
        annotations: the json.
        images: the folder that its file names are relative to.
        class_names: the order of the labels; the very names of the json. None: by category id.

    Attributes:
        class_names: label -> name.
        category_ids: label -> the json's category id.
        annotations: the packed truth.
        findings: what was clipped or dropped; of the whole json, in every selection.

    Raises:
        UserError: anything wrong with the json, or a missing image folder.
    """

    def __init__(
        self, *, annotations: Path, images: Path, class_names: Sequence[str] | None = None
    ) -> None:
        json_path, image_root = Path(annotations), Path(images)
        data = read_json(json_path)
        table = to_table(json_path, data)
        if not image_root.is_dir():
            raise UserError(f"the image folder {image_root} does not exist.")
        categories = _ordered(json_path, table.categories, class_names)
        category_ids = tuple(category_id for category_id, _ in categories)
        packed, findings = _pack(table, category_ids, data["annotations"])
        super().__init__(
            source=json_path,
            image_root=image_root,
            class_names=tuple(name for _, name in categories),
            category_ids=category_ids,
            annotations=packed,
            findings=findings,
        )

    def ground_truth(self) -> dict[str, Any]:
        """The json's own entries of the selected images, for the metric.

        Read anew, so that neither this process nor its workers hold the json. Only what a
        detection json may lack is filled in: "iscrowd" 0, "area" width times height, "id".
        """
        data = read_json(self._source)
        chosen = set(self.annotations.image_ids.tolist())
        annotations = [entry for entry in data["annotations"] if entry["image_id"] in chosen]
        for number, entry in enumerate(annotations, start=1):
            entry.setdefault("iscrowd", 0)
            entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
            entry.setdefault("id", number)
        return {
            "images": [entry for entry in data["images"] if entry["id"] in chosen],
            "annotations": annotations,
            "categories": data["categories"],
        }


def _ordered(
    path: Path, categories: list[tuple[int, str]], class_names: Sequence[str] | None
) -> list[tuple[int, str]]:
    """The (id, name) pairs in the order of ``class_names``."""
    if class_names is None:
        return categories
    names = [name for _, name in categories]
    problems = {
        "not in the json": set(class_names) - set(names),
        "missing": set(names) - set(class_names),
        "more than once": {n for n in names if max(names.count(n), class_names.count(n)) > 1},
    }
    if any(problems.values()):
        told = "; ".join(f"{k}: {first_names(sorted(v))}" for k, v in problems.items() if v)
        raise UserError(
            f"data.class_names must name each category of {path} once, in any order ({told})."
        )
    return sorted(categories, key=lambda category: list(class_names).index(category[1]))


def _pack(
    table: CocoTable, category_ids: Sequence[int], entries: list[dict[str, Any]]
) -> tuple[Annotations, Findings]:
    """The mended boxes under their labels, and what was mended."""
    low, size = table.boxes_xywh_px[:, :2], table.boxes_xywh_px[:, 2:]
    with np.errstate(invalid="ignore", over="ignore"):
        boxes = np.concatenate([low, low + size], axis=1)  # (N, 4) xyxy
    label_of = np.argsort(category_ids)
    ordered_ids = np.sort(category_ids)

    def describe(place: int) -> str:
        file_name = table.file_names[table.image_index[place]]
        entry = entries[place]
        return f"{file_name}: annotation {entry.get('id', place + 1)}, bbox {entry['bbox']}"

    return pack_mended(
        image_ids=table.image_ids,
        file_names=table.file_names,
        sizes_hw=table.sizes_hw,
        image_index=table.image_index,
        boxes_xyxy_px=boxes,
        labels=label_of[np.searchsorted(ordered_ids, table.category_ids)],
        ignored=table.crowd,
        describe=describe,
    )
