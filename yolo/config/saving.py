"""A resolved config -> the YAML text that is saved with the run."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from yolo.config.checking import dotted
from yolo.config.loading import Resolved
from yolo.config.merging import Key
from yolo.config.reading import CoreLoader

HEADER = "# Resolved from {path}: every value with the place it came from."


class _Dumper(yaml.SafeDumper):
    """Quotes what `CoreLoader` would not read back as text."""

    yaml_implicit_resolvers = CoreLoader.yaml_implicit_resolvers

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def resolved_yaml(resolved: Resolved) -> str:
    """Writes every value with a trailing comment of its origin; `load_config` reads it again."""
    lines = [HEADER.format(path=resolved.path.name)]
    lines.extend(_mapping_lines(resolved.data, (), resolved.origins))
    return "\n".join(lines) + "\n"


def _mapping_lines(
    values: Mapping[str, Any], above: Key, origins: Mapping[str, str]
) -> Iterator[str]:
    indent = "  " * len(above)
    for name, value in values.items():
        key = (*above, name)
        start = f"{indent}{yaml_text(name)}:"
        if isinstance(value, Mapping) and value:
            yield start
            yield from _mapping_lines(value, key, origins)
            continue
        origin = f"  # {origins[dotted(key)]}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield start + origin
            yield from (f"{indent}  - {yaml_text(item)}" for item in value)
        else:
            yield f"{start} {yaml_text(value)}{origin}"


def yaml_text(value: object) -> str:
    """A value as it stands in a saved config: on one line."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
    return text.removesuffix("\n").removesuffix("\n...")
