"""YAML files and overrides -> one validated config that knows where each value came from."""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from yolo.config import layers
from yolo.config.errors import About, ConfigError, explain
from yolo.config.layers import DEFAULT, REPOSITORY_ROOT, Leaf, Origin, Tree, absolute, label_of
from yolo.config.notes import notes_on_steps, notes_on_types
from yolo.config.schema import DEFAULT_TASK, TASKS, TaskConfig
from yolo.config.wording import Key, dotted, one_of, show
from yolo.errors import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A config with nothing left to look up.

    `origins` has for the dotted key of each value (a list counts as one) "default", "command line"
    or the YAML's path, from the repository's root where it lies under it.
    """

    config: TaskConfig  # validated; every path is absolute
    data: dict[str, Any]  # nested plain values; `config_from_dict(data) == config`
    origins: dict[str, str]
    path: Path  # the YAML file that was asked for
    notes: tuple[str, ...] = ()  # on values that contradict others and are allowed all the same

    def with_values(self, values: Mapping[str, Any], origin: str) -> Resolved:
        """The config with some values replaced, each whole; `values` has them by dotted key."""
        data = copy.deepcopy(self.data)
        for key, value in values.items():
            *above, name = key.split(".")
            functools.reduce(operator.getitem, above, data)[name] = copy.deepcopy(value)

        keys = [dotted(key) for key, _ in leaf_values(data)]
        prefixes = tuple(f"{changed}." for changed in values)
        origins = {
            key: origin if f"{key}.".startswith(prefixes) else self.origins[key] for key in keys
        }
        return replace(self, config=config_from_dict(data), data=data, origins=origins)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Resolved:
    """Reads a YAML file with all that it extends, and lays the overrides over it.

    Relative paths start from the folder of the YAML they stand in, in overrides and defaults from
    the repository's root.

    Args:
        path: relative to the working directory.
        overrides: each `dotted.key=value`, the value in YAML.

    Raises:
        ConfigError: with every problem found.
    """
    merger, file = layers.Layers(), absolute(Path(path), Path.cwd())
    return _resolve(merger, merger.read(file), overrides, file)


def _resolve(merger: layers.Layers, base: Tree, overrides: Sequence[str], file: Path) -> Resolved:
    tree = merger.merge(base, merger.read_overrides(overrides))
    if merger.problems:
        raise ConfigError(merger.problems)
    origins = {key: leaf.origin for key, leaf in leaf_values(tree) if isinstance(leaf, Leaf)}
    config = _validate(
        layers.values_of(tree),
        lambda key: _file_of(key, origins, label_of(file)),
        lambda key: _lost(key, merger.replaced),
    )
    data = _plain(config.model_dump(), (), origins)
    keys = [key for key, _ in leaf_values(data)]
    config = config_from_dict(data)
    defaults = [key for key in keys if key not in origins]
    lost = notes_on_types(data, defaults, merger.replaced)
    return Resolved(
        config=config,
        data=data,
        origins={dotted(key): origins.get(key, DEFAULT).label for key in keys},
        path=file,
        notes=(*dict.fromkeys(merger.notes), *lost, *notes_on_steps(config)),
    )


def with_overrides(data: Mapping[str, Any], overrides: Sequence[str], path: Path) -> TaskConfig:
    """A saved config out of its plain values, as `Resolved.data`, with overrides laid over them.

    Raises:
        ConfigError: with every problem found; `path` names the saved config.
    """
    saved = layers.tree_of(data, Origin(str(path), REPOSITORY_ROOT))
    return _resolve(layers.Layers(), saved, overrides, path).config


def config_from_dict(data: Mapping[str, Any]) -> TaskConfig:
    """Validates the plain values of a config, as `Resolved.data` and checkpoints hold them."""
    evaluation = data.get("evaluation")
    if data.get("task", DEFAULT_TASK) == DEFAULT_TASK and isinstance(evaluation, Mapping):
        # where it does not say, it is from before all classes were the default
        data = {**data, "evaluation": {"labels": "best_class", **evaluation}}
    return _validate(data, lambda key: "config", lambda key: "")


def portable(value: Any) -> Any:
    """The values of a config, as a model dumps them, without the folders of this machine.

    Paths are relative to the repository's root, those elsewhere ``data/<name>``.
    """
    if isinstance(value, Mapping):
        return {name: portable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [portable(part) for part in value]
    if not isinstance(value, Path):
        return value
    path = absolute(value, REPOSITORY_ROOT)
    under = path.is_relative_to(REPOSITORY_ROOT)
    return (path.relative_to(REPOSITORY_ROOT) if under else Path("data", path.name)).as_posix()


def leaf_values(data: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yields the key and value of everything that is no mapping, or an empty one."""
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from leaf_values(value, (*above, name))
        else:
            yield (*above, name), value


def _validate(data: Mapping[str, Any], file_of: About, lost: About) -> TaskConfig:
    task = data.get("task", DEFAULT_TASK)
    if not isinstance(task, str) or task not in TASKS:
        allowed = f"must be {one_of(TASKS)}{did_you_mean(task, TASKS)}"
        raise ConfigError([f"{file_of(('task',))}: task: {show(task)}: {allowed}"])
    model = TASKS[task]
    try:
        # Strict JSON takes lists for tuples and text for paths, but nothing else that it is not.
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise explain(error, model, data, file_of, lost) from error


def _file_of(key: Key, origins: Mapping[Key, Origin], file: str) -> str:
    """Names the file to look into for a wrong, unknown or missing key."""
    above = [key[:length] for length in range(len(key), 0, -1)]
    inside = [leaf for leaf in origins if key and leaf[: len(key)] == key]
    types = [(*component, "type") for component in above]  # who chose one, wants what is missing
    places = (*above, *inside[-1:], *types)
    return next((origins[place].label for place in places if place in origins), file)


def _lost(key: Key, replaced: Mapping[Key, Tree]) -> str:
    """That a value was set for the `type` before."""
    before = replaced.get(key[:-1], {})
    leaf = before.get(str(key[-1]))
    if not isinstance(leaf, Leaf):
        return ""
    kind = show(layers.values_of(before)["type"])
    return f"; {show(leaf.value)} from {leaf.origin.label} is not taken over from the type {kind}"


def _plain(value: Any, key: Key, origins: Mapping[Key, Origin]) -> Any:
    """A dumped model as dicts, lists and scalars: paths absolute and as text."""
    if isinstance(value, Mapping):
        return {name: _plain(inner, (*key, name), origins) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, key, origins) for item in value]
    if isinstance(value, Path):
        return str(absolute(value, origins.get(key, DEFAULT).folder))
    return value
