"""The YAML that is saved with a run: every value with its origin; written, and read back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from yolo.config.errors import ConfigError
from yolo.config.load import Resolved, leaf_values, load_config
from yolo.config.read import CoreLoader, read_yaml_file
from yolo.config.wording import Key, dotted

_HEADER = ("# Resolved from ", ": every value with the place it came from.")
"""Before and behind the YAML's name."""
_ORIGIN_MARK = "  # "


class _Dumper(yaml.SafeDumper):
    """Quotes what `CoreLoader` would not read back as text."""

    yaml_implicit_resolvers = CoreLoader.yaml_implicit_resolvers

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def yaml_text(value: object) -> str:
    """A value as it stands in a saved config: on one line."""
    options = {"default_flow_style": True, "allow_unicode": True, "sort_keys": False}
    text: str = yaml.dump(value, Dumper=_Dumper, width=float("inf"), **options)
    return text.removesuffix("\n").removesuffix("\n...")


def resolved_yaml(resolved: Resolved) -> str:
    """Writes every value with a trailing comment of its origin; `load_config` reads it again."""
    lines = _mapping_lines(resolved.data, (), resolved.origins)
    return "\n".join([resolved.path.name.join(_HEADER), *lines]) + "\n"


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
        origin = _ORIGIN_MARK + origins[dotted(key)]
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield start + origin
            yield from (f"{indent}  - {yaml_text(item)}" for item in value)
        else:
            yield f"{start} {yaml_text(value)}{origin}"


@dataclass(frozen=True)
class Setting:
    """One plain value of a config; a list counts as one."""

    value: Any
    origin: str  # "default", "command line", or the YAML that has it


def read_settings(path: Path) -> dict[str, Setting]:
    """Dotted key -> setting, of a run's folder, its config.yaml, or any YAML that main.py takes.

    What a run saved is taken as it stands, even where this version knows other settings.
    """
    file = path / "config.yaml" if path.is_dir() else path
    values = read_yaml_file(file, str(file))
    text = file.read_text("utf-8")
    if text.startswith(_HEADER[0]):
        origins = dict(_origins(text))
        if not isinstance(values, dict):
            raise ConfigError([f"{file}: holds no settings"])
    else:
        resolved = load_config(file)
        values, origins = resolved.data, resolved.origins
    return {
        dotted(key): Setting(value, origins.get(dotted(key), "unknown"))
        for key, value in leaf_values(values)
    }


def _origins(text: str) -> Iterator[tuple[str, str]]:
    """Dotted key and origin of each value, or head of a list, that ``resolved_yaml`` wrote."""
    above: list[str] = []
    for line in text.splitlines():
        if line.startswith("#") or line.lstrip().startswith("- "):
            continue
        start, mark, origin = line.rpartition(_ORIGIN_MARK)
        name = (start if mark else line).strip().partition(":")[0]
        above = [*above[: (len(line) - len(line.lstrip())) // 2], name]
        if mark:
            yield ".".join(above), origin
