"""How messages write keys and values of a config, and what its JSON schema allows."""

import functools
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

LONGEST_VALUE = 60  # characters of a value in a message

Schema = Mapping[str, Any]
Key = tuple[str | int, ...]
"""A place in a config: names of mappings, and indices into lists."""


def dotted(key: Key) -> str:
    """Writes a key as messages and overrides do: data.augment[2].scale."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def value_at(data: Any, key: Key, default: Any = None) -> Any:
    """What stands at a key of plain values, or the default."""
    try:
        return functools.reduce(operator.getitem, key, data)
    except (KeyError, IndexError, TypeError):
        return default


def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON schema of a config, without references."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(item) for item in part]
        if not isinstance(part, Mapping):
            return part
        if "$ref" in part:
            return resolved(definitions[part["$ref"].removeprefix("#/$defs/")])
        return {name: resolved(value) for name, value in part.items()}

    return dict(resolved(schema))


def without_null(schema: Schema) -> Schema:
    """`X | null` as X: the choice is no part of a location."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return without_null(options[0]) if len(options) == 1 else schema


def named_values(schema: Schema) -> list[Any]:
    """The values of an enum or a constant; none of another schema."""
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def types_of(schema: Schema) -> list[Any]:
    """The values of `type` that choose a section."""
    return named_values(schema.get("properties", {}).get("type", {}))


def describe(schema: Schema) -> str:
    """What a JSON schema of pydantic's kind, without references, allows; to follow "must be"."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return _describe_options(options)
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
    types = list(map(types_of, options))
    if all(types):
        names = [show(name) for member in types for name in member]
        return f"a mapping with the type {joined(names)}"
    # Long words last: [2, 3] beside 5 reads "a number or a list of 2 (each a number)".
    place = {"array": 1, "object": 1, "null": 2}
    options = sorted(options, key=lambda option: place.get(option.get("type", ""), 0))
    return joined(list(map(describe, options)))


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
    return ("one of " if len(shown) > 2 else "") + joined(shown)


def joined(words: list[str]) -> str:
    """a, b or c."""
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
