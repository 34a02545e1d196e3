"""Every problem of a config in one exception, and pydantic's errors in sentences of our own."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from yolo.errors import did_you_mean, one_line

LONGEST_VALUE = 60
"""Characters of a value in a message."""

Schema = Mapping[str, Any]
Key = tuple[str | int, ...]
"""A place in a config: names of mappings, and indices into lists."""

FileOf = Callable[[Key], str]
"""Names the file that a key was written in."""

_MISSING = object()


class ConfigError(Exception):
    """What is wrong with a config or with the overrides on the command line.

    `str(error)` is the text for the terminal; the commands print it and exit with code 2.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(one_line, problems))
        super().__init__("\n".join(self.problems))


def dotted(key: Key) -> str:
    """Writes a key as messages and overrides do: data.augment[2].scale."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def explain(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], file_of: FileOf
) -> ConfigError:
    """Words the errors of validating `data` by what the model's JSON schema allows there."""
    schema = model.model_json_schema()
    sentences = _Sentences(_without_references(schema, schema.get("$defs", {})), data, file_of)
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


def _without_references(schema: Any, definitions: Schema) -> Any:
    """Puts what each `$ref` names in its place."""
    if isinstance(schema, list):
        return [_without_references(item, definitions) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return _without_references(definitions[name], definitions)
    return {
        name: _without_references(value, definitions)
        for name, value in schema.items()
        if name != "$defs"
    }


@dataclass(frozen=True)
class _Sentences:
    """The sentences about one config, whose schema and values they quote."""

    schema: Schema
    data: Mapping[str, Any]
    file_of: FileOf

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
                yield self._line(key, self._unknown(str(key[-1]), _without_null(schema)))
            case "union_tag_invalid" | "union_tag_not_found":
                members = _without_null(schema)["oneOf"]
                types = sorted(name for member in members for name in _types(member))
                yield self._must_be((*key, "type"), one_of(types), types)
            case _:
                names = [n for o in (schema, *schema.get("anyOf", ())) for n in _named_values(o)]
                yield self._must_be(key, describe(schema), names)

    def _line(self, key: Key, words: str) -> str:
        value = self._value(key)
        shown = "" if value is _MISSING else f"{show(value)}: "
        return f"{self.file_of(key)}: {dotted(key)}: {shown}{words}"

    def _must_be(self, key: Key, allowed: str, names: Sequence[object]) -> str:
        value = self._value(key)
        missing = "missing: " if value is _MISSING else ""
        near = did_you_mean(value, names) if isinstance(value, str) else ""
        return self._line(key, f"{missing}must be {allowed}{near}")

    def _unknown(self, name: str, parent: Schema) -> str:
        allowed = list(parent["properties"])
        near = did_you_mean(name, allowed)
        if not near and (elsewhere := next(_keys_named(name, self.schema), None)):
            near = f" (did you mean {dotted(elsewhere)!r}?)"
        return f"unknown key, allowed are {', '.join(allowed)}{near}"

    def _value(self, key: Key) -> Any:
        value: Any = self.data
        try:
            for part in key:
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
            inside = _without_null(schema)
            if "discriminator" in inside:
                schema = next(member for member in inside["oneOf"] if part in _types(member))
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


def _without_null(schema: Schema) -> Schema:
    """`X | null` as X: the choice is no part of a location."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return _without_null(options[0]) if len(options) == 1 else schema


def _keys_named(name: str, schema: Schema) -> Iterator[Key]:
    """Yields the keys of all settings that are called just so, wherever they are."""
    for option in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from _keys_named(name, option)
    for key, inner in schema.get("properties", {}).items():
        if key == name:
            yield (key,)
        yield from ((key, *below) for below in _keys_named(name, inner))


def _named_values(schema: Schema) -> list[Any]:
    """The values of an enum or a constant; none of another schema."""
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def _types(schema: Schema) -> list[Any]:
    """The values of `type` that choose a section."""
    return _named_values(schema.get("properties", {}).get("type", {}))


def describe(schema: Schema) -> str:
    """What a JSON schema of pydantic's kind, without references, allows; to follow "must be"."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return _describe_options(options)
    if names := _named_values(schema):
        return one_of(names)
    match schema.get("type"):
        case "integer":
            multiple = schema.get("multipleOf")
            suffix = f" that is a multiple of {multiple}" if multiple else ""
            return f"a whole number{_bounds(schema)}{suffix}"
        case "number":
            return f"a number{_bounds(schema)}"
        case "array":
            least, most = schema.get("minItems"), schema.get("maxItems")
            count = f" of {least}" if least is not None and least == most else ""
            members = schema.get("prefixItems") or [schema.get("items", {})]
            order = ", in ascending order" if schema.get("nondecreasing") else ""
            each = " then ".join(dict.fromkeys(map(describe, members)))
            return f"a list{count} (each {each}{order})"
        case "object":
            if schema.get("properties"):
                return f"a mapping with the keys {', '.join(schema['properties'])}"
            values = schema.get("additionalProperties")
            return "a mapping" + (f" from names to {describe(values)}" if values else "")
        case "string":
            return "a path" if schema.get("format") == "path" else "text"
        case simple:
            return {"boolean": "true or false", "null": "null"}.get(str(simple), "a value")


def _describe_options(options: list[Schema]) -> str:
    types = list(map(_types, options))
    if all(types):
        names = [show(name) for member in types for name in member]
        return f"a mapping with the type {_joined(names)}"
    # Long words last: [2, 3] beside 5 reads "a number or a list of 2 (each a number)".
    place = {"array": 1, "object": 1, "null": 2}
    options = sorted(options, key=lambda option: place.get(option.get("type", ""), 0))
    return _joined(list(map(describe, options)))


def _bounds(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:.15g} to {schema['maximum']:.15g}"
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "at most" if "exclusiveMinimum" in schema else "of at most",
        "exclusiveMaximum": "below",
    }
    parts = [f"{word} {schema[name]:.15g}" for name, word in words.items() if name in schema]
    return " " + " and ".join(parts) if parts else ""


def one_of(values: Iterable[object]) -> str:
    """'a' or 'b'; one of 'a', 'b' or 'c'."""
    shown = list(map(show, values))
    return ("one of " if len(shown) > 2 else "") + _joined(shown)


def _joined(words: list[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def show(value: object) -> str:
    """A value of a config in one short line: text in quotes, the rest as YAML writes it."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(show, value)) + "]"
    else:
        text = json.dumps(value).replace("Infinity", ".inf").replace("NaN", ".nan")
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
