"""Data sets in COCO's format: a json of boxes and a folder of images.

The json is checked in whole columns: a pass in Python per field, none per box.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from yolo.data.annotations import sanitize
from yolo.data.formats.detection import (
    DIGITS,
    DetectionDataset,
    WrittenImage,
    check_named_once,
    is_inside,
)
from yolo.errors import UserError
from yolo.files import read_or_refuse

_LISTS = ("images", "annotations", "categories")

MAX_ID = 2**53 - 1
"""The COCO tools, and json in most languages, keep numbers as doubles."""

NUMBERS = frozenset({int, float})
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    bool: "a flag",
    type(None): "null",
}


class CocoDataset(DetectionDataset):
    """A COCO json with its image folder and category ids; crowd boxes become ignored regions.

    Args:
        annotations: the json.
        images: the folder that its file names are relative to.
        class_names: the very names of the json; None: by category id.
    """

    def __init__(
        self, *, annotations: Path, images: Path, class_names: Sequence[str] | None = None
    ) -> None:
        path, image_root = Path(annotations), Path(images)
        data = _read_json(path)
        image, box, category = (_Entries(path, key, data[key]) for key in _LISTS)
        image_ids, category_ids = image.ids(), category.ids()
        names = category.column("name", {str})
        order = np.argsort(category_ids).tolist()
        if class_names is not None:
            unknown, missing, what = "not in the json", "missing", f"category of {path}"
            check_named_once(what, names, class_names, unknown=unknown, missing=missing)
            order = [names.index(name) for name in class_names]
        box.check_areas()
        image_index = box.references("image_id", image, image_ids)
        file_names = image.file_names()
        if not image_root.is_dir():
            raise UserError(f"the image folder {image_root} does not exist.")

        def describe(place: int) -> str:
            entry, name = data["annotations"][place], file_names[image_index[place]]
            return f"{name}: annotation {entry.get('id', place + 1)}, bbox {entry['bbox']}"

        contents = sanitize(
            [names[place] for place in order],
            image_ids=image_ids,
            file_names=file_names,
            sizes_hw=np.stack([image.sizes("height"), image.sizes("width")], axis=1),
            image_index=image_index,
            boxes_xyxy_px=box.boxes(),
            labels=box.references("category_id", category, category_ids[order]),
            ignored=np.array(box.column("iscrowd", {int, bool}, default=0), bool),
            describe=describe,
        )
        super().__init__(path, image_root, contents, category_ids[order].tolist())

    def ground_truth(self) -> dict[str, Any]:
        """The json's own entries of the selected images, for the metric.

        Read anew, so that neither this process nor its workers hold the json. Only what a
        detection json may lack is filled in: "iscrowd" 0, "area" width times height, "id".
        """
        data = _read_json(self._source)
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


def _read_json(path: Path) -> dict[str, Any]:
    """Read a COCO json and check its outline."""
    content = read_or_refuse("the annotation file", path)
    if not content.strip():
        raise UserError(f"the annotation file {path} is empty.")
    try:
        data = json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(
            f"the annotation file {path} is broken json at line {error.lineno}, column "
            f"{error.colno}: {error.msg}."
        ) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits
        raise UserError(f"the annotation file {path} is no json text: {error}.") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds {_type_name(data)}, but a COCO json is an object.")
    for key in _LISTS:
        if key not in data:
            raise UserError(
                f'{path} has no "{key}": a COCO json has the lists "images", "annotations" and '
                f'"categories".'
            )
        if not isinstance(data[key], list):
            raise UserError(f'{path}: "{key}" is {_type_name(data[key])}, but must be a list.')
        if key != "annotations" and not data[key]:
            raise UserError(f'{path}: "{key}" is empty, but at least one is needed.')
    return data


class _Entries:
    """One of the json's lists; its methods give checked columns, or the first entry at fault."""

    def __init__(self, path: Path, key: str, entries: list[Any]) -> None:
        self.path, self.key, self.entries = path, key, entries
        if not set(map(type, entries)) <= {dict}:
            passes = [isinstance(entry, dict) for entry in entries]
            self.check(passes, "", "is {}, but must be an object.", [*map(_type_name, entries)])

    def column(self, field: str, types: Collection[type], default: Any = None) -> list[Any]:
        """A field of all entries, of one of ``types``; ``default`` fills in where it is absent."""
        try:
            values = list(map(itemgetter(field), self.entries))
        except KeyError:
            if default is None:
                passes = [field in entry for entry in self.entries]
                self.check(passes, field, "is missing.", self.entries)
            values = [entry.get(field, default) for entry in self.entries]
        if not set(map(type, values)) <= set(types):
            problem = f"is {{}}, but must be {' or '.join(sorted(TYPE_NAMES[t] for t in types))}."
            passes = [type(value) in types for value in values]
            self.check(passes, field, problem, [*map(_type_name, values)])
        return values

    def whole_numbers(self, field: str) -> np.ndarray:
        """A field of whole numbers as int64 (N,)."""
        values = self.column(field, {int})
        try:
            return np.array(values, np.int64)
        except OverflowError:
            fits = [abs(value) < 2**63 for value in values]
            self.check(fits, field, "is {}, too large for 64 bits.", values)
            raise

    def ids(self) -> np.ndarray:
        """The entries' ids, int64 (N,); each may appear once."""
        ids = self.whole_numbers("id")
        self.check(np.abs(ids) <= MAX_ID, "id", "is {}; ids must be below 2^53.", ids)
        known, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise UserError(
                f'{self.path}: "{self.key}" has the id {known[counts > 1][0]} more than once; ids '
                "must differ."
            )
        return ids

    def references(self, field: str, owner: _Entries, ids: np.ndarray) -> np.ndarray:
        """The place of each entry's reference among the ids of the ``owner``, int64 (N,)."""
        used = self.whole_numbers(field)
        by_id = np.argsort(ids)
        places = by_id[np.searchsorted(ids, used, sorter=by_id).clip(max=len(ids) - 1)]
        problem = f'is {{}}, which "{owner.key}" does not define.'
        self.check(ids[places] == used, field, problem, used)
        return places

    def sizes(self, field: str) -> np.ndarray:
        """A field of pixel counts, int64 (N,), at least 1; 480.0 passes for 480."""
        values = _floats(self.column(field, NUMBERS))
        passes = (values >= 1) & (values < 2**31) & (values == np.floor(values))
        self.check(passes, field, "is {:g}, but must be a number of pixels > 0.", values)
        return values.astype(np.int64)

    def boxes(self) -> np.ndarray:
        """The "bbox" fields [x, y, w, h] as float64 (N, 4) xyxy."""
        boxes = self.column("bbox", {list})
        counts = [*map(len, boxes)]
        passes = [count == 4 for count in counts]
        self.check(passes, "bbox", "has {} numbers, but must be [x, y, w, h].", counts)
        if not set(map(type, chain.from_iterable(boxes))) <= NUMBERS:
            passes = [set(map(type, box)) <= NUMBERS for box in boxes]
            self.check(passes, "bbox", "is {}, but must be four numbers [x, y, w, h].", boxes)
        packed = _floats([*chain.from_iterable(boxes)]).reshape(-1, 4)  # (4 N,) -> (N, 4) xywh
        with np.errstate(invalid="ignore", over="ignore"):
            packed[:, 2:] += packed[:, :2]
        return packed

    def check_areas(self) -> None:
        """The "area" that some have is a number: it decides where the metric counts a box."""
        areas = _floats(self.column("area", NUMBERS, default=0))
        passes = np.isfinite(areas) & (areas >= 0)
        self.check(passes, "area", "is {:g}, but must be a number of at least 0.", areas)

    def file_names(self) -> list[str]:
        """The "file_name" fields; each must stay inside the image folder."""
        names = self.column("file_name", {str})
        problem = "is {!r}, but must be a path inside the image folder."
        self.check([*map(is_inside, names)], "file_name", problem, names)
        return names

    def check(self, passes: ArrayLike, field: str, problem: str, values: Any) -> None:
        """Refuse the first entry that does not pass: ``problem`` with its value in place of {}."""
        if not np.all(passes):
            place = int(np.argmin(passes))
            entry = self.entries[place]
            known_by = f" (id {entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
            subject = f'{self.path}: "{self.key}" entry {place + 1}{known_by}:'
            what = problem.format(values[place])
            raise UserError(f'{subject} "{field}" {what}' if field else f"{subject} {what}")


def _floats(values: list[int | float]) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except OverflowError:  # as texts, whole numbers beyond the range become infinite
        return np.array([float(str(value)) for value in values])


def _type_name(value: Any) -> str:
    return TYPE_NAMES.get(type(value), "an object")


def write_coco(
    folder: Path, dataset: DetectionDataset, images: Sequence[WrittenImage], split: str
) -> dict[str, Any]:
    """Write the json. Image and category ids stay; ignored regions have "iscrowd" 1."""
    data = DetectionDataset.ground_truth(dataset)  # a COCO json's own entries may hold more
    data["categories"].sort(key=itemgetter("id"))
    for entry, image in zip(data["images"], images, strict=True):
        entry["file_name"] = image.name
    boxes = chain.from_iterable(image.boxes_xyxy_px.tolist() for image in images)
    for entry, (left, top, right, bottom) in zip(data["annotations"], boxes, strict=True):
        width, height = round(right - left, DIGITS), round(bottom - top, DIGITS)
        entry.update(bbox=[left, top, width, height], area=round(width * height, DIGITS))
    (folder / "annotations.json").write_text(json.dumps(data), "utf-8")
    return {"type": "coco", "annotations": Path("annotations.json"), "images": Path("images")}
