"""Every key of the config in tables, from its JSON schema; ``hooks.py`` puts them into a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCHEMA_FILE = ROOT / "configs/schema.json"
DEFAULT_AUGMENT = ROOT / "yolo/config/default_augment.yaml"

Schema = dict[str, Any]

HEAD = ("| Key | Default | Allowed | What it is |", "|---|---|---|---|")
BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "above {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
}
KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}


def config_reference() -> str:
    """Tables of all keys: of a detector's config, and of a classifier's where they differ."""
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    writer, parts = _Writer(schema["$defs"]), []
    for task in schema["anyOf"]:
        parts += [f"## task: {task['properties']['task']['const']}", task["description"]]
        parts += writer.section("", task)
    parts += ["## Transforms", "Entries of `data.augment`, each with its `type` and its arguments."]
    for transform in schema["$defs"]["Transform"]["anyOf"]:
        kind = transform["properties"]["type"]
        parts += [f"### {kind['const']}", f"{kind['description'].rstrip('.')}."]
        parts.append(writer.table("", transform))
    defaults = DEFAULT_AUGMENT.read_text("utf-8").rstrip()
    parts += ["## Default transforms", f"```yaml\n{defaults}\n```"]
    return "\n\n".join(parts)


class _Writer:
    """Writes a section and those in it; what several keys may hold stands below the first."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions
        self._first: dict[str, str] = {}  # name of a definition -> dotted key
        self._written = set[str]()  # names of definitions

    def section(self, above: str, schema: Schema) -> Iterator[str]:
        """The table of a section, then the sections in it; ``above`` is its dotted key."""
        yield self.table(above, schema)
        for name, value in schema["properties"].items():
            for inner in _names(value):
                if inner not in self._written:
                    self._written.add(inner)
                    section = self._definitions[inner]
                    kind = section["properties"].get("type")
                    yield f"### {above}{name}" + (f" of type {allowed(kind)}" if kind else "")
                    yield from [section["description"]] if "description" in section else []
                    yield from self.section(f"{above}{name}.", section)

    def table(self, above: str, schema: Schema) -> str:
        """A row for each key."""
        rows = list(HEAD)
        needed = schema.get("required", schema["properties"])  # only transforms have the list
        for name, value in schema["properties"].items():
            key = f"{above}{name}"
            kind, default = allowed(value), _default(value)
            if inner := list(_names(value)):
                for one in inner:
                    self._first.setdefault(one, key)
                first = self._first[inner[0]]
                is_below = first == key and inner[0] not in self._written
                kind = "a section, below" if is_below else f"a section, as `{first}`"
                kind = f"null, or {kind}" if value.get("default", "") is None else kind
            elif not default and name in needed and name != "extends":
                default = "**required**"
            cells = [f"`{key}`", default, kind, value.get("description", "")]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(rows)


def _names(value: Schema) -> Iterator[str]:
    """The definitions of the sections that a key may hold, one for each `type`."""
    for option in value.get("anyOf", [value]):
        if "anyOf" in option:
            yield from _names(option)
        elif "$ref" in option:
            yield option["$ref"].rpartition("/")[2]


def _default(value: Schema) -> str:
    if value.get("items", {}).get("$ref", "").endswith("/Transform"):
        return "[a list](#default-transforms)"
    return f"`{json.dumps(value['default'])}`" if "default" in value else ""


def allowed(value: Schema) -> str:
    """What a key may be, in words."""
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(allowed(option) for option in value["anyOf"]))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "$ref" in value:
        return "a transform"
    words = [text.format(value[name]) for name, text in BOUNDS.items() if name in value]
    if "minimum" in value and "maximum" in value:
        words[:2] = [f"{value['minimum']} to {value['maximum']}"]
    return ", ".join([_kind(value), *words])


def _kind(value: Schema) -> str:
    kind = value["type"]
    if kind == "array":
        least, most = value.get("minItems", 0), value.get("maxItems")
        counts = {least: f"{least} ", None: f"{least} or more " * (least > 0)}
        count = counts.get(most, f"{least} to {most} ")
        return f"a list of {count}({allowed(value.get('items') or value['prefixItems'][0])})"
    if kind == "object":
        return f"a mapping, each value {allowed(value['additionalProperties'])}"
    if kind == "string":
        return "a path" if value.get("format") == "path" else "a text"
    return KINDS.get(kind, kind)
