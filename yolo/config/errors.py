"""Every problem of a config in one exception, and pydantic's errors in sentences of our own."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """Words pydantic's errors by what the model's JSON schema allows at their location.

    Args:
        error: of validating `data` with `model`.
        file_of: names the file of each key.
    """
    sentences = _Sentences(model.model_json_schema(), data, file_of)
    details = _without_consequences(error.errors())
    return ConfigError(dict.fromkeys(line for detail in details for line in sentences.of(detail)))


def _without_consequences(errors: Sequence[Any]) -> list[Any]:
    """Leaves out that a list is too short where only its wrong members make it so."""
    places = [error["loc"] for error in errors]

    def has_wrong_members(list_place: Key) -> bool:
        depth = len(list_place)
        return any(len(place) > depth and place[:depth] == list_place for place in places)

    return [
        error
        for error in errors
        if error["type"] != "too_short" or not has_wrong_members(error["loc"])
    ]


class _Sentences:
    """The sentences about one config, whose schema and values they quote."""

    def __init__(self, schema: Schema, data: Mapping[str, Any], file_of: FileOf) -> None:
        self.schema = schema
        self.definitions: Schema = schema.get("$defs", {})
        self.data = data
        self.file_of = file_of

    def of(self, error: Any) -> Iterator[str]:
        key, schema = self._locate(error["loc"])
        match error["type"]:
            case "rule":
                for inner, words in error["ctx"]["rules"]:
                    yield self._line((*key, *_parts(inner)), words)
            case "json_invalid":
                yield f"{self.file_of(key)}: holds text that is not Unicode"
            case "extra_forbidden":
                yield self._line(key, self._unknown(str(key[-1]), self._without_null(schema)))
            case "union_tag_invalid" | "union_tag_not_found":
                types = list(self._without_null(schema)["discriminator"]["mapping"])
                yield self._must_be((*key, "type"), one_of(types), types)
            case _:
                options = resolve(schema, self.definitions)
                names = [n for o in (options, *options.get("anyOf", ())) for n in named_values(o)]
                yield self._must_be(key, describe(schema, self.definitions), names)

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
        elsewhere = next(_keys_named(name, self.schema, self.definitions), None)
        if elsewhere and not near:
            near = f" (did you mean {dotted(elsewhere)!r}?)"
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


def describe(schema: Schema, definitions: Schema | None = None) -> str:
    """What a JSON schema allows, to follow "must be".

    Args:
        schema: of the kind that pydantic writes, `$ref` included.
        definitions: its `$defs`.
    """
    definitions = definitions or {}
    schema = resolve(schema, definitions)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return _describe_options([resolve(option, definitions) for option in options], definitions)
    if names := named_values(schema):
        return one_of(names)
    match schema.get("type"):
        case "integer":
            multiple = schema.get("multipleOf")
            suffix = f" that is a multiple of {multiple}" if multiple else ""
            return f"a whole number{_bounds(schema)}{suffix}"
        case "number":
            return f"a number{_bounds(schema)}"
        case "array":
            return _describe_list(schema, definitions)
        case "object":
            return _describe_mapping(schema, definitions)
        case "string":
            return "a path" if schema.get("format") == "path" else "text"
        case simple:
            return {"boolean": "true or false", "null": "null"}.get(str(simple), "a value")


def resolve(schema: Schema, definitions: Schema) -> Schema:
    """Follows `$ref` to the schema that it names."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    return schema


def named_values(schema: Schema) -> list[Any]:
    """The values of an enum or a constant; none of another schema."""
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def one_of(values: Iterable[object]) -> str:
    """'a' or 'b'; one of 'a', 'b' or 'c'."""
    shown = [show(value) for value in values]
    return ("one of " if len(shown) > 2 else "") + _joined(shown)


def show(value: object) -> str:
    """A value of a config in one short line: text in quotes, the rest as YAML writes it."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    else:
        text = json.dumps(value).replace("Infinity", ".inf").replace("NaN", ".nan")
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _describe_options(options: list[Schema], definitions: Schema) -> str:
    types = [named_values(option.get("properties", {}).get("type", {})) for option in options]
    if all(types):
        return (
            f"a mapping with the type {_joined([show(name) for names in types for name in names])}"
        )
    # Long words last: [2, 3] beside 5 reads "a number or a list of 2 (each a number)".
    place = {"array": 1, "object": 1, "null": 2}
    options = sorted(options, key=lambda option: place.get(option.get("type", ""), 0))
    return _joined([describe(option, definitions) for option in options])


def _joined(words: list[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _bounds(schema: Schema) -> str:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if lowest is not None and highest is not None:
        return f" from {lowest:.15g} to {highest:.15g}"
    parts = [
        f"{word} {bound:.15g}"
        for word, bound in (
            ("of at least", lowest),
            ("above", above),
            ("of at most" if above is None else "at most", highest),
            ("below", below),
        )
        if bound is not None
    ]
    return " " + " and ".join(parts) if parts else ""


def _describe_list(schema: Schema, definitions: Schema) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    count = f" of {least}" if least is not None and least == most else ""
    members = schema.get("prefixItems") or [schema.get("items", {})]
    words = dict.fromkeys(describe(member, definitions) for member in members)
    order = ", in ascending order" if schema.get("nondecreasing") else ""
    return f"a list{count} (each {' then '.join(words)}{order})"


def _describe_mapping(schema: Schema, definitions: Schema) -> str:
    if schema.get("properties"):
        return f"a mapping with the keys {', '.join(schema['properties'])}"
    values = schema.get("additionalProperties")
    inside = (
        f" from names to {describe(values, definitions)}" if isinstance(values, Mapping) else ""
    )
    return f"a mapping{inside}"
