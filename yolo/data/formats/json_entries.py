"""The columns of a list of json objects, checked: a pass in Python per field, none per entry."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from yolo.data.formats.detection import Key, first_names
from yolo.errors import UserError

NUMBERS = frozenset({int, float})
IDS = frozenset({int, float, str})
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    bool: "a flag",
    type(None): "null",
}
_WHOLE = re.compile("-?[0-9]{1,300}")


class Entries:
    """One of the json's lists; its methods give checked columns, or tell the entries at fault."""

    def __init__(self, key: str, entries: list[Any], places: Sequence[int] | None = None) -> None:
        self.key, self.entries = key, entries
        self.places = range(len(entries)) if places is None else places  # in the json

    def check_objects(self) -> None:
        if not set(map(type, self.entries)) <= {dict}:
            passes = [isinstance(entry, dict) for entry in self.entries]
            names = [*map(type_name, self.entries)]
            self.check(passes, "", "is {}, but must be an object", names)

    def with_field(self, field: str) -> tuple[Entries, list[Any]]:
        """The entries where a field holds something, and those where it is empty or missing."""
        places = [place for place, entry in enumerate(self.entries) if entry.get(field)]
        rest = [entry for entry in self.entries if not entry.get(field)]
        return Entries(self.key, [self.entries[place] for place in places], places), rest

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
            self.check(passes, field, problem, [*map(type_name, values)])
        return values

    def keys(self, field: str) -> list[Key]:
        """A field of ids, such that equal ones compare so."""
        values = self.column(field, IDS)
        if set(map(type, values)) <= {int}:
            return values
        whole = [not isinstance(value, float) or value.is_integer() for value in values]
        self.check(whole, field, "is {}, but must be a whole number or a text", values)
        return [_key(value) for value in values]

    def ids(self) -> list[Key]:
        """The entries' ids; each may appear once."""
        ids = self.keys("id")
        if len(set(ids)) < len(ids):
            repeated = [key for key, count in Counter(ids).items() if count > 1]
            named = first_names(map(str, repeated))
            raise UserError(f'"{self.key}" has the id {named} more than once; ids must differ')
        return ids

    def references(self, field: str, owner: str, ids: Sequence[Key]) -> np.ndarray:
        """The place of each entry's reference among the ids of its owner, int64 (N,)."""
        place_of = dict(zip(ids, range(len(ids)), strict=True))
        used = self.keys(field)
        found = list(map(place_of.get, used))
        if None in found:
            passes = [place is not None for place in found]
            self.check(passes, field, f'is {{!r}}, which "{owner}" does not define', used)
        return np.array(found, np.int64)

    def check(
        self,
        passes: Sequence[bool] | np.ndarray,
        field: str,
        problem: str,
        values: Sequence[Any] | np.ndarray = (),
    ) -> None:
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


def floats(values: list[int | float]) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except OverflowError:  # as texts, whole numbers beyond the range become infinite
        return np.array([float(str(value)) for value in values])


def type_name(value: Any) -> str:
    """What a value of a json is, for messages."""
    return TYPE_NAMES.get(type(value), "an object")
