"""Words for the terminal: what a JSON schema allows, a value in short, the nearest name."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]

LONGEST_VALUE = 60


def describe(schema: Schema, definitions: Schema | None = None) -> str:
    """Says what a JSON schema allows, to follow "must be".

    Args:
        schema: of the kind that pydantic writes, `$ref` included.
        definitions: its `$defs`.
    """
    definitions = definitions or {}
    schema = resolve(schema, definitions)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return _describe_options([resolve(option, definitions) for option in options], definitions)
    if "const" in schema:
        return show(schema["const"])
    if "enum" in schema:
        return one_of(schema["enum"])
    words = _DESCRIBERS.get(schema.get("type", ""))
    return words(schema, definitions) if words else "a value"


def resolve(schema: Schema, definitions: Schema) -> Schema:
    """Follows `$ref` to the schema that it names."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    return schema


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


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """' (did you mean 'x'?)' where something known is near, else nothing."""
    names = [name for name in known if isinstance(name, str)]
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(word).lower(), lower, n=1)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""


def _describe_options(options: list[Schema], definitions: Schema) -> str:
    types = [option.get("properties", {}).get("type", {}).get("const") for option in options]
    if all(types):
        return f"a mapping with the type {_joined([show(name) for name in types])}"
    # Long words last: [2, 3] beside 5 reads "a number or a list of 2 (each a number)".
    options = sorted(options, key=lambda option: option.get("type") in ("array", "object"))
    options = sorted(options, key=lambda option: option.get("type") == "null")
    return _joined([describe(option, definitions) for option in options])


def _joined(words: list[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _describe_integer(schema: Schema, definitions: Schema) -> str:
    multiple = schema.get("multipleOf")
    suffix = f" that is a multiple of {multiple}" if multiple else ""
    return f"a whole number{_bounds(schema)}{suffix}"


def _describe_number(schema: Schema, definitions: Schema) -> str:
    return f"a number{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if lowest is not None and highest is not None:
        return f" from {_plain(lowest)} to {_plain(highest)}"
    parts = [
        f"{word} {_plain(bound)}"
        for word, bound in (
            ("of at least", lowest),
            ("above", above),
            ("of at most" if above is None else "at most", highest),
            ("below", below),
        )
        if bound is not None
    ]
    return " " + " and ".join(parts) if parts else ""


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _describe_array(schema: Schema, definitions: Schema) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    count = f" of {least}" if least is not None and least == most else ""
    members = schema.get("prefixItems") or [schema.get("items", {})]
    words = list(dict.fromkeys(describe(member, definitions) for member in members))
    order = ", in ascending order" if schema.get("nondecreasing") else ""
    return f"a list{count} (each {' then '.join(words)}{order})"


def _describe_object(schema: Schema, definitions: Schema) -> str:
    if schema.get("properties"):
        return f"a mapping with the keys {', '.join(schema['properties'])}"
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        return f"a mapping from names to {describe(values, definitions)}"
    return "a mapping"


_DESCRIBERS = {
    "integer": _describe_integer,
    "number": _describe_number,
    "array": _describe_array,
    "object": _describe_object,
    "boolean": lambda schema, definitions: "true or false",
    "null": lambda schema, definitions: "null",
    "string": lambda schema, definitions: "a path" if schema.get("format") == "path" else "text",
}
