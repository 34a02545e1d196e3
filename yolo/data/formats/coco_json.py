"""The columns of a COCO json, checked: a pass in Python per field, none per box."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from yolo.data.formats.detection import Key, is_inside
from yolo.data.formats.json_entries import IDS, NUMBERS, Entries, floats, type_name
from yolo.errors import UserError, one_line
from yolo.files import read_or_refuse

_LISTS = ("images", "annotations", "categories")

MAX_ID = 2**53 - 1
"""The COCO tools, and json in most languages, keep numbers as doubles."""

_COLUMNS = (
    *("image_ids", "category_ids", "names", "file_names", "sizes_hw"),
    *("boxes_xywh_px", "areas_px2", "crowds", "image_index", "category_index"),
)


class CocoJson:
    """What a COCO json says of I images, K categories and the N annotations that have a box.

    Null means that a value is absent. Ids are whole numbers (1.0 and "1" are 1) or other texts.

    Raises:
        UserError: each kind of fault that was found, with the first entry and the number of all.
    """

    def __init__(self, path: Path, image_root: Path) -> None:
        content = read_or_refuse("the annotation file", path)
        lists = _parse_json(path, content)
        self.digest = hashlib.blake2b(content).digest()
        self.image_root = image_root
        self._image, box, self._category = (Entries(key, lists[key]) for key in _LISTS)
        _check_all(path, [entries.check_objects for entries in (self._image, box, self._category)])
        self._box, rest = box.with_field("bbox")
        self.without_box = [f"annotation {e.get('id')} of image {e.get('image_id')}" for e in rest]
        _check_all(path, [partial(getattr, self, name) for name in _COLUMNS])

    @cached_property
    def image_ids(self) -> list[Key]:
        return self._image.ids()

    @cached_property
    def category_ids(self) -> list[Key]:
        return self._category.ids()

    @cached_property
    def names(self) -> list[str]:
        return self._category.column("name", {str})

    @cached_property
    def image_numbers(self) -> np.ndarray:
        """int64 (I,): the images' ids, or 1, 2, ... where one is no whole number below 2^53."""
        if all(isinstance(number, int) and abs(number) <= MAX_ID for number in self.image_ids):
            return np.array(self.image_ids, np.int64)
        return np.arange(1, len(self.image_ids) + 1)

    def own_ids(self) -> tuple[list[Key], list[Key]]:
        """Of images and of categories, as the json has them."""
        image, category = (
            [number if isinstance(number, str) else int(number) for number in e.column("id", IDS)]
            for e in (self._image, self._category)
        )
        return image, category

    @cached_property
    def file_names(self) -> list[str]:
        """Inside the image folder. Backslashes are slashes.

        Of a path with backslashes, or one that leads out of the folder, the name alone counts where
        only that is there, and no other image has it.
        """
        names = self._image.column("file_name", {str})
        odd = [i for i, name in enumerate(names) if "\\" in name or not _is_relative(name)]
        if odd:
            names = list(names)
            last_parts = [PureWindowsPath(name).name for name in names]
            counts = Counter(last_parts)
            for i in odd:
                last = last_parts[i]
                tried = [names[i], names[i].replace("\\", "/"), *[last] * (counts[last] == 1)]
                there = (name for name in tried if _is_relative(name) and self._has(name))
                names[i] = next(there, tried[1])
        problem = "is {!r}, but must be a path inside the image folder"
        self._image.check([*map(_is_relative, names)], "file_name", problem, names)
        return names

    def _has(self, name: str) -> bool:
        with suppress(OSError):  # too long a name
            return (self.image_root / name).is_file()
        return False

    @cached_property
    def sizes_hw(self) -> np.ndarray:
        """int64 (I, 2), 0 where one of both is missing; 480.0 passes for 480."""
        columns = []
        for field in ("height", "width"):
            values = floats(self._image.column(field, NUMBERS, default=0))
            passes = (values >= 0) & (values < 2**31) & (values == np.floor(values))
            problem = "is {:g}, but must be a number of pixels > 0"
            self._image.check(passes, field, problem, values)
            columns.append(values.astype(np.int64))
        sizes = np.stack(columns, axis=1)
        return np.where((sizes > 0).all(axis=1, keepdims=True), sizes, 0)

    @cached_property
    def boxes_xywh_px(self) -> np.ndarray:
        """The "bbox" fields [x, y, w, h], float64 (N, 4)."""
        if self.without_box and not self._box.entries:
            raise UserError('none of the "annotations" has a "bbox", but at least one is needed')
        boxes = self._box.column("bbox", {list})
        counts = [*map(len, boxes)]
        passes = [count == 4 for count in counts]
        self._box.check(passes, "bbox", "has {} numbers, but must be [x, y, w, h]", counts)
        if not set(map(type, chain.from_iterable(boxes))) <= NUMBERS:
            passes = [set(map(type, box)) <= NUMBERS for box in boxes]
            problem = "is {}, but must be four numbers [x, y, w, h]"
            self._box.check(passes, "bbox", problem, boxes)
        return floats([*chain.from_iterable(boxes)]).reshape(-1, 4)  # (4 N,) -> (N, 4)

    @cached_property
    def areas_px2(self) -> np.ndarray:
        """By which the metric tells sizes apart, float64 (N,); else width times height."""
        areas = floats(self._box.column("area", NUMBERS, default=0))
        passes = np.isfinite(areas) & (areas >= 0)
        self._box.check(passes, "area", "is {:g}, but must be a number of at least 0", areas)
        absent = np.array([entry.get("area") is None for entry in self._box.entries], bool)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.where(absent, self.boxes_xywh_px[:, 2:].prod(axis=1), areas)

    @cached_property
    def crowds(self) -> np.ndarray:
        """Bool (N,)."""
        return np.array(self._box.column("iscrowd", NUMBERS | {bool}, default=0), bool)

    @cached_property
    def image_index(self) -> np.ndarray:
        """The place of each box's image, int64 (N,)."""
        return self._box.references("image_id", "images", self.image_ids)

    @cached_property
    def category_index(self) -> np.ndarray:
        """The place of each box's category, int64 (N,)."""
        return self._box.references("category_id", "categories", self.category_ids)

    def describe(self, place: int) -> str:
        """How a message names a box."""
        entry, image = self._box.entries[place], self.image_index[place]
        number = entry.get("id", self._box.places[place] + 1)
        return f"{self.file_names[image]}: annotation {number}, bbox {entry['bbox']}"


def _check_all(path: Path, checks: Sequence[Callable[[], object]]) -> None:
    """Tell what all checks have found in one sentence."""
    faults: dict[str, None] = {}
    for check in checks:
        try:
            check()
        except UserError as fault:
            faults[one_line(str(fault))] = None
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}.")


def _parse_json(path: Path, content: bytes) -> dict[str, Any]:
    """A COCO json, whose outline is checked."""
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
        raise UserError(f"{path} holds {type_name(data)}, but a COCO json is an object.")
    for key in _LISTS:
        if key not in data:
            raise UserError(
                f'{path} has no "{key}": a COCO json has the lists "images", "annotations" and '
                f'"categories".'
            )
        if not isinstance(data[key], list):
            raise UserError(f'{path}: "{key}" is {type_name(data[key])}, but must be a list.')
        if key != "annotations" and not data[key]:
            raise UserError(f'{path}: "{key}" is empty, but at least one is needed.')
    return data


def _is_relative(name: str) -> bool:
    return is_inside(name) and name[1:2] != ":"
