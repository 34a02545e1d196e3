"""A COCO json, read and checked in whole columns: a pass in Python per field, none per box."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from yolo.data.formats.detection import is_inside
from yolo.data.reading import read_regular
from yolo.errors import UserError

LARGEST_ID = 2**53 - 1
"""The COCO tools, and json in most languages, keep numbers as doubles."""

NUMBERS = frozenset({int, float})
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    bool: "a flag",
}


@dataclass(frozen=True, slots=True)
class CocoTable:
    """The columns of a checked json. I images, N annotations, K categories.

    Attributes:
        image_ids: int64 (I,), distinct.
        file_names: I names, each inside the image folder.
        sizes_hw: int64 (I, 2), pixels, at least 1.
        image_index: int64 (N,), the image of each annotation, 0..I-1.
        category_ids: int64 (N,), each one defined.
        boxes_xywh_px: float64 (N, 4), as they stand in the json.
        crowd: bool (N,).
        categories: K pairs (id, name) by ascending id.
    """

    image_ids: np.ndarray
    file_names: list[str]
    sizes_hw: np.ndarray
    image_index: np.ndarray
    category_ids: np.ndarray
    boxes_xywh_px: np.ndarray
    crowd: np.ndarray
    categories: list[tuple[int, str]]


def read_json(path: Path) -> dict[str, Any]:
    """Read a COCO json and check its outline.

    Raises:
        UserError: the file is missing, empty, no json, or lacks one of the three lists.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        raise UserError(f"the annotation file {path} does not exist.") from None
    except OSError as error:
        raise UserError(f"the annotation file {path} cannot be read: {error.strerror}.") from None
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
    _check_outline(path, data)
    return data


def _check_outline(path: Path, data: Any) -> None:
    if not isinstance(data, dict):
        raise UserError(f"{path} holds {_type_name(data)}, but a COCO json is an object.")
    for key in ("images", "annotations", "categories"):
        if key not in data:
            raise UserError(
                f'{path} has no "{key}": a COCO json has the lists "images", "annotations" and '
                f'"categories".'
            )
        if not isinstance(data[key], list):
            raise UserError(f'{path}: "{key}" is {_type_name(data[key])}, but must be a list.')
    for key in ("images", "categories"):
        if not data[key]:
            raise UserError(f'{path}: "{key}" is empty, but at least one is needed.')


def to_table(path: Path, data: dict[str, Any]) -> CocoTable:
    """Check the entries of a json and turn them into columns.

    Raises:
        UserError: names the file, the first entry at fault and its key.
    """
    images = _Entries(path, "images", data["images"])
    annotations = _Entries(path, "annotations", data["annotations"])
    categories = _Entries(path, "categories", data["categories"])
    image_ids = images.distinct_ids()
    category_ids = categories.distinct_ids()
    names = categories.column("name", {str})
    boxes = annotations.boxes()
    annotations.check_areas()
    used = annotations.whole_numbers("category_id")
    annotations.check_known(used, category_ids, "category_id", "categories")
    of_image = annotations.whole_numbers("image_id")
    annotations.check_known(of_image, image_ids, "image_id", "images")
    by_id = np.argsort(image_ids)
    return CocoTable(
        image_ids=image_ids,
        file_names=images.file_names(),
        sizes_hw=np.stack([images.sizes("height"), images.sizes("width")], axis=1),
        image_index=by_id[np.searchsorted(image_ids, of_image, sorter=by_id)],
        category_ids=used,
        boxes_xywh_px=boxes,
        crowd=np.array(annotations.column("iscrowd", {int, bool}, default=0), bool),
        categories=sorted(zip(category_ids.tolist(), names, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Entries:
    """One of the json's lists, with what its error messages need."""

    path: Path
    key: str
    entries: list[Any]

    def column(self, field: str, types: Iterable[type], default: Any = None) -> list[Any]:
        """A field of all entries, of one of ``types``; ``default`` fills in where it is absent."""
        allowed = frozenset(types)
        try:
            if default is None:
                values = [entry[field] for entry in self.entries]
            else:
                values = [entry.get(field, default) for entry in self.entries]
        except (KeyError, TypeError, AttributeError, IndexError):
            self._report_absent(field)
        if not set(map(type, values)) <= allowed:
            place = next(i for i, value in enumerate(values) if type(value) not in allowed)
            wanted = " or ".join(TYPE_NAMES[t] for t in sorted(allowed, key=str))
            self.fail(place, f'"{field}" is {_type_name(values[place])}, but must be {wanted}.')
        return values

    def whole_numbers(self, field: str) -> np.ndarray:
        """A field of whole numbers as int64."""
        values = self.column(field, {int})
        try:
            return np.array(values, np.int64)
        except OverflowError:
            place = next(i for i, value in enumerate(values) if abs(value) >= 2**63)
            self.fail(place, f'"{field}" is {values[place]}, too large for 64 bits.')

    def distinct_ids(self) -> np.ndarray:
        """The entries' ids, int64; each may appear once."""
        ids = self.whole_numbers("id")
        too_large = np.abs(ids) > LARGEST_ID
        if too_large.any():
            place = int(too_large.argmax())
            self.fail(place, f'"id" is {ids[place]}; ids must be below 2^53.')
        kept, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            twice = int(kept[counts > 1][0])
            raise UserError(
                f'{self.path}: "{self.key}" has the id {twice} more than once; ids must differ.'
            )
        return ids

    def check_known(self, used: np.ndarray, known: np.ndarray, field: str, owner: str) -> None:
        """Every id that is used must be defined."""
        unknown = ~np.isin(used, known)
        if unknown.any():
            place = int(unknown.argmax())
            self.fail(place, f'"{field}" is {used[place]}, which "{owner}" does not define.')

    def sizes(self, field: str) -> np.ndarray:
        """A field of pixel counts, int64, at least 1; 480.0 passes for 480."""
        values = _floats(self.column(field, NUMBERS))
        wrong = ~((values >= 1) & (values < 2**31) & (values == np.floor(values)))
        if wrong.any():
            place = int(wrong.argmax())
            self.fail(place, f'"{field}" is {values[place]:g}, but must be a number of pixels > 0.')
        return values.astype(np.int64)

    def boxes(self) -> np.ndarray:
        """The "bbox" fields, float64 (N, 4)."""
        boxes = self.column("bbox", {list})
        if not set(map(len, boxes)) <= {4}:
            place = next(i for i, box in enumerate(boxes) if len(box) != 4)
            self.fail(place, f'"bbox" has {len(boxes[place])} numbers, but must be [x, y, w, h].')
        if not set(map(type, chain.from_iterable(boxes))) <= NUMBERS:
            place = next(i for i, b in enumerate(boxes) if not set(map(type, b)) <= NUMBERS)
            self.fail(place, f'"bbox" is {boxes[place]}, but must be four numbers [x, y, w, h].')
        return _floats([*chain.from_iterable(boxes)]).reshape(-1, 4)  # (4 N,) -> (N, 4)

    def check_areas(self) -> None:
        """The "area" that some have is a number: it decides where the metric counts a box."""
        areas = _floats(self.column("area", NUMBERS, default=0))
        wrong = ~(np.isfinite(areas) & (areas >= 0))
        if wrong.any():
            place = int(wrong.argmax())
            self.fail(place, f'"area" is {areas[place]:g}, but must be a number of at least 0.')

    def file_names(self) -> list[str]:
        """The "file_name" fields; each must stay inside the image folder."""
        names = self.column("file_name", {str})
        for place, name in enumerate(names):
            if not name or name[0] == "/" or ".." in name or "\0" in name:
                self._check_inside(place, name)
        return names

    def _check_inside(self, place: int, name: str) -> None:
        if not is_inside(name):
            self.fail(
                place, f'"file_name" is {name!r}, but must be a path inside the image folder.'
            )

    def fail(self, place: int, problem: str) -> NoReturn:
        """Raise with the file, the list and the entry."""
        entry = self.entries[place]
        known_by = f" (id {entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
        raise UserError(f'{self.path}: "{self.key}" entry {place + 1}{known_by}: {problem}')

    def _report_absent(self, field: str) -> NoReturn:
        for place, entry in enumerate(self.entries):
            if not isinstance(entry, dict):
                self.fail(place, f"is {_type_name(entry)}, but must be an object.")
            if field not in entry:
                self.fail(place, f'"{field}" is missing.')
        raise AssertionError(f"every entry has {field}")


def _floats(values: list[int | float]) -> np.ndarray:
    """float64 (N,); whole numbers beyond its range become infinite."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([_float(value) for value in values], np.float64)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    return TYPE_NAMES.get(type(value), "an object")
