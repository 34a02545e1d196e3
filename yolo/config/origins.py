"""The config that a run saved, read back as settings with the place that each came from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo.config.checking import dotted
from yolo.config.errors import ConfigError
from yolo.config.loading import label_of, leaf_keys, load_config
from yolo.config.merging import Key
from yolo.config.reading import read_yaml_file
from yolo.config.saving import HEADER

CONFIG = "config.yaml"

_FIRST_WORDS = HEADER.partition("{")[0]
_MARK = "  # "


@dataclass(frozen=True)
class Setting:
    """One value of a config.

    Attributes:
        value: plain; a list counts as one value.
        origin: "default", "command line", or the YAML that says so.
    """

    value: Any
    origin: str


def read_settings(path: Path) -> dict[str, Setting]:
    """Dotted key -> setting, of a run's folder, its config.yaml, or any YAML that main.py takes.

    What a run saved is taken as it stands, even where this version knows other settings.

    Raises:
        ConfigError: no such file, or it cannot be read.
    """
    file = path / CONFIG if path.is_dir() else path
    values = read_yaml_file(file, str(file))
    text = file.read_text("utf-8")
    if not text.startswith(_FIRST_WORDS):
        resolved = load_config(file)
        return _settings(resolved.data, resolved.origins)
    if not isinstance(values, dict):
        raise ConfigError([f"{label_of(file)}: holds no settings"])
    return _settings(values, dict(_origins(text)))


def _settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, Setting]:
    return {
        dotted(key): Setting(_value_at(values, key), origins.get(dotted(key), "unknown"))
        for key in leaf_keys(values)
    }


def _value_at(values: Any, key: Key) -> Any:
    for name in key:
        values = values[name]
    return values


def _origins(text: str) -> Iterator[tuple[str, str]]:
    """Dotted key and origin of each value, or head of a list, that ``resolved_yaml`` wrote."""
    above: list[str] = []
    for line in text.splitlines():
        start, mark, origin = line.rpartition(_MARK)
        if line.startswith("#") or line.lstrip().startswith("- "):
            continue
        name = (start if mark else line).strip().partition(":")[0]
        above = [*above[: (len(line) - len(line.lstrip())) // 2], name]
        if mark:
            yield ".".join(above), origin
