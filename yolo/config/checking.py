"""Plain values -> validated config; what pydantic finds wrong -> lines for the terminal."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from yolo.config.describing import Schema, describe, did_you_mean, one_of, resolve, show
from yolo.config.errors import ConfigError
from yolo.config.merging import Key
from yolo.config.schema import DEFAULT_TASK, TASKS, TaskConfig
from yolo.config.schema.base import RULE

FileOf = Callable[[Key], str]

_MISSING = object()


def config_from_dict(data: Mapping[str, Any]) -> TaskConfig:
    """Validates the plain values of a config, as `Resolved.data` and checkpoints hold them.

    Raises:
        ConfigError: with every problem found.
    """
    return validate(data, lambda key: "config")


def validate(data: Mapping[str, Any], file_of: FileOf) -> TaskConfig:
    """Validates plain values.

    Args:
        data: nested dicts, lists and scalars.
        file_of: names the file that a key was written in.

    Raises:
        ConfigError: with every problem found.
    """
    task = data.get("task", DEFAULT_TASK)
    if not isinstance(task, str) or task not in TASKS:
        allowed = f"must be {one_of(TASKS)}{did_you_mean(task, TASKS)}"
        raise ConfigError([f"{file_of(('task',))}: task: {show(task)}: {allowed}"])
    model = TASKS[task]
    try:
        # Strict JSON takes lists for tuples and text for paths, but nothing else that it is not.
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems = _Problems(model.model_json_schema(), data, file_of)
        details = _without_consequences(error.errors())
        lines = [line for detail in details for line in problems.lines(detail)]
        raise ConfigError(list(dict.fromkeys(lines))) from error


def _without_consequences(errors: list[Any]) -> list[Any]:
    """Leaves out that a list is too short where only its wrong members make it so."""
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(
            len(other["loc"]) > len(error["loc"])
            and other["loc"][: len(error["loc"])] == error["loc"]
            for other in errors
        )
    ]


class _Problems:
    """Words pydantic's errors by what the schema says at their location."""

    def __init__(self, schema: Schema, data: Mapping[str, Any], file_of: FileOf) -> None:
        self.schema = schema
        self.definitions: Schema = schema.get("$defs", {})
        self.data = data
        self.file_of = file_of

    def lines(self, error: Any) -> Iterator[str]:
        key, schema = self._locate(error["loc"])
        kind = error["type"]
        if kind == RULE:
            for inner, words in error["ctx"]["rules"]:
                yield self._line((*key, *_parts(inner)), words)
        elif kind == "json_invalid":
            yield f"{self.file_of(key)}: holds text that is not Unicode"
        elif kind == "extra_forbidden":
            yield self._line(key, self._unknown(str(key[-1]), self._without_null(schema)))
        elif kind in ("union_tag_invalid", "union_tag_not_found"):
            yield self._line((*key, "type"), self._one_of_types(key, self._without_null(schema)))
        else:
            yield self._line(key, self._must_be(key, schema))

    def _line(self, key: Key, words: str) -> str:
        value = self._value(key)
        shown = "" if value is _MISSING else f"{show(value)}: "
        return f"{self.file_of(key)}: {dotted(key)}: {shown}{words}"

    def _must_be(self, key: Key, schema: Schema) -> str:
        value = self._value(key)
        missing = "missing: " if value is _MISSING else ""
        near = (
            did_you_mean(value, _named_values(resolve(schema, self.definitions)))
            if isinstance(value, str)
            else ""
        )
        return f"{missing}must be {describe(schema, self.definitions)}{near}"

    def _one_of_types(self, key: Key, schema: Schema) -> str:
        types = list(schema["discriminator"]["mapping"])
        value = self._value((*key, "type"))
        missing = "missing: " if value is _MISSING else ""
        return f"{missing}must be {one_of(types)}{did_you_mean(value, types)}"

    def _unknown(self, name: str, parent: Schema) -> str:
        allowed = list(parent["properties"])
        near = did_you_mean(name, allowed)
        for key in () if near else _keys_named(name, self.schema, self.definitions):
            near = f" (did you mean {dotted(key)!r}?)"
            break
        return f"unknown key, allowed are {', '.join(allowed)}{near}"

    def _value(self, key: Key) -> Any:
        value: Any = self.data
        for part in key:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return _MISSING
        return value

    def _locate(self, location: Key) -> tuple[Key, Schema]:
        """Key and schema of an error; for an unknown key, the schema of the mapping it is in.

        pydantic's locations also hold the tags and the names of the members of unions, which are
        no keys.
        """
        key: list[str | int] = []
        schema = self.schema
        for part in location:
            inside = self._without_null(schema)
            if "discriminator" in inside:
                schema = {"$ref": inside["discriminator"]["mapping"][part]}
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

    def _without_null(self, schema: Schema) -> Schema:
        """Follows references, and `X | null` to X: they are no part of a location."""
        schema = resolve(schema, self.definitions)
        options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
        return self._without_null(options[0]) if len(options) == 1 else schema


def _keys_named(name: str, schema: Schema, definitions: Schema) -> Iterator[Key]:
    """Yields the keys of all settings that are called just so, wherever they are."""
    schema = resolve(schema, definitions)
    for option in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from _keys_named(name, option, definitions)
    for key, inner in schema.get("properties", {}).items():
        if key == name:
            yield (key,)
        for below in _keys_named(name, inner, definitions):
            yield (key, *below)


def _parts(inner: str) -> Key:
    """The parts of a rule's dotted key: "augment.0.height" has an item's number in it."""
    return tuple(int(part) if part.isdigit() else part for part in inner.split(".") if part)


def _named_values(schema: Schema) -> list[object]:
    options = [schema, *schema.get("anyOf", ())]
    return [
        value
        for option in options
        for value in [*option.get("enum", ()), *([option["const"]] if "const" in option else ())]
    ]


def dotted(key: Key) -> str:
    """Writes a key as messages and overrides do: data.augment[2].scale."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
