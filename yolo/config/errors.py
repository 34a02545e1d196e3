"""Every problem of a config in one exception, and pydantic's errors in sentences of our own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from yolo.config.hints import meant_key
from yolo.config.wording import (
    Key,
    Schema,
    describe,
    dotted,
    named_values,
    one_of,
    schema_of,
    show,
    types_of,
    value_at,
    without_null,
)
from yolo.errors import did_you_mean, one_line

About = Callable[[Key], str]
"""Tells of a key, such as the file that it was written in."""

_MISSING = object()


class ConfigError(Exception):
    """What is wrong with a config or with the overrides on the command line.

    `str(error)` is the text for the terminal; the commands print it and exit with code 2.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(one_line, problems))
        super().__init__("\n".join(self.problems))


def explain(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[str, Any],
    file_of: About,
    lost: About,
) -> ConfigError:
    """Words the errors of validating `data` by what the model's JSON schema allows there.

    ``lost`` tells of a missing key what was set for another `type`, or nothing.
    """
    sentences = _Sentences(schema_of(model), data, file_of, lost)
    errors = error.errors()
    above = {wrong["loc"][:length] for wrong in errors for length in range(len(wrong["loc"]))}
    lines = [
        line
        for wrong in errors
        # a list that is too short only for its wrong members is no problem of its own
        if wrong["type"] != "too_short" or wrong["loc"] not in above
        for line in sentences.of(wrong)
    ]
    return ConfigError(dict.fromkeys(lines))


@dataclass(frozen=True)
class _Sentences:
    """The sentences about one config, whose schema and values they quote."""

    schema: Schema
    data: Mapping[str, Any]
    file_of: About
    lost: About

    def of(self, error: Any) -> Iterator[str]:
        key, schema = self._locate(error["loc"])
        match error["type"]:
            case "rule":
                for inner, words in error["ctx"]["rules"]:
                    # "augment.0.height" has an item's number in it
                    parts = [int(p) if p.isdigit() else p for p in inner.split(".") if p]
                    yield self._line((*key, *parts), words)
            case "json_invalid":
                yield f"{self.file_of(key)}: holds text that is not Unicode"
            case "extra_forbidden":
                allowed = ", ".join(without_null(schema)["properties"])
                meant = meant_key(key, value_at(self.data, key), self.schema, self.data)
                yield self._line(key, f"unknown key, allowed are {allowed}{meant}")
            case "union_tag_invalid" | "union_tag_not_found":
                members = without_null(schema)["oneOf"]
                types = sorted(name for member in members for name in types_of(member))
                yield self._must_be((*key, "type"), one_of(types), types)
            case _:
                names = [n for o in (schema, *schema.get("anyOf", ())) for n in named_values(o)]
                yield self._must_be(key, describe(schema), names)

    def _line(self, key: Key, words: str) -> str:
        value = value_at(self.data, key, _MISSING)
        shown = "" if value is _MISSING else f"{show(value)}: "
        return f"{self.file_of(key)}: {dotted(key)}: {shown}{words}"

    def _must_be(self, key: Key, allowed: str, names: Sequence[object]) -> str:
        value = value_at(self.data, key, _MISSING)
        missing = "missing: " if value is _MISSING else ""
        near = did_you_mean(value, names) if isinstance(value, str) else ""
        lost = self.lost(key) if missing else ""
        return self._line(key, f"{missing}must be {allowed}{near}{lost}")

    def _locate(self, location: Key) -> tuple[Key, Schema]:
        """Key and schema of an error; for an unknown key, the schema of the mapping it is in.

        pydantic's locations also hold the tags and the names of the members of unions, which are
        no keys.
        """
        key: list[str | int] = []
        schema = self.schema
        for part in location:
            inside = without_null(schema)
            if "discriminator" in inside:
                schema = next(member for member in inside["oneOf"] if part in types_of(member))
                continue
            if part in inside.get("properties", {}):
                schema = inside["properties"][part]
            elif isinstance(inside.get("additionalProperties"), Mapping):
                schema = inside["additionalProperties"]
            elif inside.get("type") == "array" and isinstance(part, int):
                members = inside.get("prefixItems")
                schema = members[part] if members else inside["items"]
            elif "properties" not in inside:
                break
            key.append(part)
        return tuple(key), schema
