"""The columns of a COCO json, checked: a pass in Python per field, none per box."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from yolo.data.formats.detection import Key, first_names, is_inside
from yolo.errors import UserError, one_line
from yolo.files import read_or_refuse

_LISTS = ("images", "annotations", "categories")

NUMBERS = frozenset({int, float})
IDS = frozenset({int, float, str})
TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", list: "a list"}
TYPE_NAMES |= {bool: "a flag", type(None): "null"}
_Values = Sequence[Any] | np.ndarray
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_WHOLE = re.compile("-?[0-9]{1,300}")


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
        self.images, box, self.categories = (_Entries(key, lists[key]) for key in _LISTS)
        _check_all(path, [e.check_objects for e in (self.images, box, self.categories)])
        self._box, rest = box.with_field("bbox")
        self.without_box = [f"annotation {e.get('id')} of image {e.get('image_id')}" for e in rest]
        ids = [partial(getattr, entries, "ids") for entries in (self.images, self.categories)]
        names = ("names", "file_names", "sizes_hw", "boxes_xywh_px", "areas_px2", "crowds")
        columns = [partial(getattr, self, n) for n in (*names, "image_index", "category_index")]
        _check_all(path, [*ids, *columns])

    @cached_property
    def names(self) -> list[str]:
        return self.categories.column("name", {str})

    @cached_property
    def image_numbers(self) -> np.ndarray:
        """int64 (I,): the images' ids, or 1, 2, ... where one is no whole number below 2^53.

        The COCO tools, and json in most languages, keep numbers as doubles.
        """
        ids = self.images.ids
        if all(isinstance(number, int) and abs(number) < 2**53 for number in ids):
            return np.array(ids, np.int64)
        return np.arange(1, len(ids) + 1)

    @cached_property
    def file_names(self) -> list[str]:
        """Inside the image folder. Backslashes are slashes.

        Of a path with those, or one that leads out, the name alone counts where only that is there.
        """
        names = self.images.column("file_name", {str})
        odd = [i for i, name in enumerate(names) if "\\" in name or not _is_relative(name)]
        if odd:
            last_parts = [PureWindowsPath(name).name for name in names]
            counts = Counter(last_parts)
            for i in odd:
                last = last_parts[i]
                tried = [names[i], names[i].replace("\\", "/"), *[last] * (counts[last] == 1)]
                there = (name for name in tried if _is_relative(name) and self._has(name))
                names[i] = next(there, tried[1])
        problem = "is {!r}, but must be a path inside the image folder"
        self.images.check([*map(_is_relative, names)], "file_name", problem, names)
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
            values = _floats(self.images.column(field, NUMBERS, default=0))
            passes = (values >= 0) & (values < 2**31) & (values == np.floor(values))
            problem = "is {:g}, but must be a number of pixels > 0"
            self.images.check(passes, field, problem, values)
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
            self._box.check(passes, "bbox", "is {}, but must be four numbers [x, y, w, h]", boxes)
        return _floats([*chain.from_iterable(boxes)]).reshape(-1, 4)  # (4 N,) -> (N, 4)

    @cached_property
    def areas_px2(self) -> np.ndarray:
        """By which the metric tells sizes apart, float64 (N,); else width times height."""
        areas = _floats(self._box.column("area", NUMBERS, default=0))
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
        return self._box.references("image_id", self.images)

    @cached_property
    def category_index(self) -> np.ndarray:
        """The place of each box's category, int64 (N,)."""
        return self._box.references("category_id", self.categories)

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
        raise UserError(f"{path} holds {_type_name(data)}, but a COCO json is an object.")
    form = 'a COCO json has the lists "images", "annotations" and "categories".'
    for key in _LISTS:
        if key not in data:
            raise UserError(f'{path} has no "{key}": {form}')
        if not isinstance(data[key], list):
            raise UserError(f'{path}: "{key}" is {_type_name(data[key])}, but must be a list.')
        if key != "annotations" and not data[key]:
            raise UserError(f'{path}: "{key}" is empty, but at least one is needed.')
    return data


def _is_relative(name: str) -> bool:
    return is_inside(name) and not _DRIVE.match(name)


class _Entries:
    """One of the json's lists; its methods give checked columns, or tell the entries at fault."""

    def __init__(self, key: str, entries: list[Any], places: Sequence[int] | None = None) -> None:
        self.key, self.entries = key, entries
        self.places = range(len(entries)) if places is None else places  # in the json

    def check_objects(self) -> None:
        if not set(map(type, self.entries)) <= {dict}:
            passes = [isinstance(entry, dict) for entry in self.entries]
            names = [*map(_type_name, self.entries)]
            self.check(passes, "", "is {}, but must be an object", names)

    def with_field(self, field: str) -> tuple[_Entries, list[Any]]:
        """The entries where a field holds something, and those where it is empty or missing."""
        places = [place for place, entry in enumerate(self.entries) if entry.get(field)]
        rest = [entry for entry in self.entries if not entry.get(field)]
        return _Entries(self.key, [self.entries[place] for place in places], places), rest

    def column(self, field: str, types: Collection[type], default: Any = None) -> list[Any]:
        """A field of all entries, of one of ``types``; ``default`` fills in where it is absent.

        A text that is a number passes for it where the types are numbers.
        """
        values = [entry.get(field, default) for entry in self.entries]
        if not set(map(type, values)) <= set(types):
            if default is None:
                self.check([field in entry for entry in self.entries], field, "is missing")
            values = [default if value is None else value for value in values]
            if float in types:
                values = [_number(value) if isinstance(value, str) else value for value in values]
            problem = f"is {{}}, but must be {' or '.join(sorted(TYPE_NAMES[t] for t in types))}"
            passes = [type(value) in types for value in values]
            self.check(passes, field, problem, [*map(_type_name, values)])
        return values

    def keys(self, field: str) -> list[Key]:
        """A field of ids, such that equal ones compare so."""
        values = self.column(field, IDS)
        if set(map(type, values)) <= {int}:
            return values
        whole = [not isinstance(value, float) or value.is_integer() for value in values]
        self.check(whole, field, "is {}, but must be a whole number or a text", values)
        return [_key(value) for value in values]

    def own_ids(self) -> list[Key]:
        """As the json has them."""
        ids = self.column("id", IDS)
        return [number if isinstance(number, str) else int(number) for number in ids]

    @cached_property
    def ids(self) -> list[Key]:
        """The entries' ids; each may appear once."""
        ids = self.keys("id")
        if len(set(ids)) < len(ids):
            repeated = [key for key, count in Counter(ids).items() if count > 1]
            named = first_names(map(str, repeated))
            raise UserError(f'"{self.key}" has the id {named} more than once; ids must differ')
        return ids

    def references(self, field: str, owner: _Entries) -> np.ndarray:
        """The place of each entry's reference among the ids of its owner, int64 (N,)."""
        place_of = {key: place for place, key in enumerate(owner.ids)}
        used = self.keys(field)
        found = list(map(place_of.get, used))
        if None in found:
            passes = [place is not None for place in found]
            self.check(passes, field, f'is {{!r}}, which "{owner.key}" does not define', used)
        return np.array(found, np.int64)

    def check(self, passes: _Values, field: str, problem: str, values: _Values = ()) -> None:
        """Tell which do not pass: ``problem`` with the value of the first one in place of {}."""
        if np.all(passes):
            return
        wrong = np.flatnonzero(~np.asarray(passes, bool)).tolist()
        entry = self.entries[wrong[0]]
        known_by = f" (id {entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
        subject = f'"{self.key}" entry {self.places[wrong[0]] + 1}{known_by}:'
        what = problem.format(*values[wrong[0] : wrong[0] + 1])
        others = first_names(str(self.places[place] + 1) for place in wrong[1:])
        more = f" (and {len(wrong) - 1:,} more entries: {others})" if others else ""
        raise UserError(f'{subject} "{field}" {what}{more}' if field else f"{subject} {what}{more}")


def _key(value: Key | float) -> Key:
    return value if isinstance(value, str) and not _WHOLE.fullmatch(value) else int(value)


def _number(text: str) -> int | float | str:
    try:
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    except ValueError:
        return text


def _floats(values: list[int | float]) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except OverflowError:  # as texts, whole numbers beyond the range become infinite
        return np.array([float(str(value)) for value in values])


def _type_name(value: Any) -> str:
    return TYPE_NAMES.get(type(value), "an object")
