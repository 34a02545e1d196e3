"""YAML files and overrides -> one validated config that knows where each value came from."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolo.config.checking import config_from_dict, dotted, validate
from yolo.config.describing import did_you_mean, show
from yolo.config.errors import ConfigError
from yolo.config.merging import Key, Source, Tree, merge, sources_of, tree_of, values_of
from yolo.config.reading import read_yaml, read_yaml_file
from yolo.config.schema import TaskConfig

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
DEFAULT = Source(label="default", folder=REPOSITORY_ROOT)
COMMAND_LINE = Source(label="command line", folder=REPOSITORY_ROOT)

MOST_FILES = 100
"""Behind one config: a few small ones could otherwise name each other without end."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A config with nothing left to look up.

    Attributes:
        config: validated; every path is absolute.
        data: the same as nested dicts, lists and scalars; `config_from_dict(data) == config`.
        origins: dotted key of each value (a list counts as one) -> "default", the YAML's path
            (from the repository's root where it lies under it), or "command line".
        path: the YAML file that was asked for.
    """

    config: TaskConfig
    data: dict[str, Any]
    origins: dict[str, str]
    path: Path

    def with_values(self, values: Mapping[str, Any], origin: str) -> Resolved:
        """The config with some values replaced, each whole.

        Args:
            values: by dotted key.
            origin: where they came from.

        Raises:
            ConfigError: with every problem found.
        """
        data = copy.deepcopy(self.data)
        for key, value in values.items():
            *above, name = key.split(".")
            section = data
            for part in above:
                section = section[part]
            section[name] = copy.deepcopy(value)

        def is_new(key: str) -> bool:
            return any(key == changed or key.startswith(f"{changed}.") for changed in values)

        kept = {key: label for key, label in self.origins.items() if not is_new(key)}
        new = dict.fromkeys(filter(is_new, map(dotted, leaf_keys(data))), origin)
        origins = kept | new
        return replace(self, config=config_from_dict(data), data=data, origins=origins)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Resolved:
    """Reads a YAML file with all that it extends, and lays the overrides over it.

    Relative paths start from the folder of the YAML they stand in, in overrides and defaults from
    the repository's root.

    Args:
        path: the YAML file, relative to the working directory.
        overrides: each `dotted.key=value`, the value in YAML.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[str] = []
    file = _absolute(Path(path), Path.cwd())
    tree = merge(_read_tree(file, (), {}, problems), _override_tree(overrides, problems))
    if problems:
        raise ConfigError(problems)
    values, sources = values_of(tree), dict(sources_of(tree))
    config = validate(values, lambda key: _file_of(key, sources, label_of(file)))
    data = dict(_plain_items(config.model_dump(), (), sources))
    return Resolved(
        config=config_from_dict(data),
        data=data,
        origins={dotted(key): sources.get(key, DEFAULT).label for key in leaf_keys(data)},
        path=file,
    )


def label_of(file: Path) -> str:
    """A file's name in messages: from the repository's root where it lies under it."""
    under = file.is_relative_to(REPOSITORY_ROOT)
    return file.relative_to(REPOSITORY_ROOT).as_posix() if under else str(file)


def leaf_keys(data: Mapping[str, Any], above: Key = ()) -> Iterator[Key]:
    """Yields the keys of all values that are no mappings, or empty ones."""
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from leaf_keys(value, (*above, name))
        else:
            yield (*above, name)


def _read_tree(
    file: Path, extended_by: tuple[Path, ...], trees: dict[Path, Tree], problems: list[str]
) -> Tree:
    """Reads a file over everything that it extends; each file once, however many extend it.

    Args:
        file: absolute.
        extended_by: the files that led here, from the outermost.
        trees: of the files that were read, empty where one is still read; filled in.
        problems: what is wrong is added here.

    Raises:
        ConfigError: the files are too many.
    """
    chain = (*extended_by, file)
    if file in extended_by:
        names = " -> ".join(label_of(link) for link in chain[chain.index(file) :])
        problems.append(f"{label_of(extended_by[-1])}: extends: makes a circle: {names}")
        return {}
    if file in trees:
        return trees[file]
    if len(trees) == MOST_FILES:
        raise ConfigError(
            [f"{label_of(chain[0])}: extends: leads to more than {MOST_FILES} files; merge some"]
        )
    tree: Tree = {}
    trees[file] = tree
    values = _read_mapping(file, extended_by, problems)
    for base in _bases(values.pop("extends", []), file, problems):
        tree = merge(tree, _read_tree(base, chain, trees, problems))
    source = Source(label=label_of(file), folder=file.parent)
    trees[file] = merge(tree, tree_of(values, source))
    return trees[file]


def _read_mapping(
    file: Path, extended_by: tuple[Path, ...], problems: list[str]
) -> dict[str, object]:
    label = label_of(file)
    try:
        values = read_yaml_file(file, label)
    except ConfigError as error:
        if not os.path.exists(file):  # noqa: PTH110 - unlike Path.exists it raises nothing
            by = f" (extended by {label_of(extended_by[-1])})" if extended_by else ""
            problems.append(f"{label}: no such file{by}{_near_file(file)}")
        else:
            problems.extend(error.problems)
        return {}
    if not isinstance(values, dict):
        # What it holds stays untold: it may be any file of this machine.
        what = "is empty" if values is None else "holds no mapping"
        problems.append(f"{label}: {what}, but must be a mapping such as 'training: {{...}}'")
        return {}
    return values


def _near_file(file: Path) -> str:
    neighbours = sorted(file.parent.glob("*.yaml")) if file.parent.is_dir() else []
    return did_you_mean(file.name, [neighbour.name for neighbour in neighbours])


def _bases(extends: object, file: Path, problems: list[str]) -> list[Path]:
    names = [extends] if isinstance(extends, str) else extends
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        problems.append(
            f"{label_of(file)}: extends: {show(extends)}: must be a path or a list of paths"
        )
        return []
    bases = [_absolute(Path(name), file.parent) for name in reversed(names)]
    return [*dict.fromkeys(bases)][::-1]  # each once, where it comes last


def _override_tree(overrides: Sequence[str], problems: list[str]) -> Tree:
    """Merges all overrides with each other, so that their order matters for equal keys only."""
    tree: Tree = {}
    for override in overrides:
        try:
            tree = merge(tree, _parse_override(override))
        except ConfigError as error:
            problems.extend(error.problems)
    return tree


def _parse_override(override: str) -> Tree:
    label = COMMAND_LINE.label
    dotted_key, equals, text = override.partition("=")
    parts = dotted_key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            [
                f"{label}: {show(override)}: an override is written key=value, "
                "for example training.batch_size=16"
            ]
        )
    if parts == ["extends"]:
        raise ConfigError([f"{label}: extends: can only stand in a file"])
    tree = tree_of({parts[-1]: read_yaml(text, f"{label}: {dotted_key.strip()}")}, COMMAND_LINE)
    for part in reversed(parts[:-1]):
        tree = {part: tree}
    return tree


def _file_of(key: Key, sources: Mapping[Key, Source], file: str) -> str:
    """Names the file to look into for a wrong, unknown or missing key."""
    for length in range(len(key), 0, -1):
        if key[:length] in sources:
            return sources[key[:length]].label
    inside = [source.label for leaf, source in sources.items() if leaf[: len(key)] == key]
    if inside and key:
        return inside[-1]
    for length in range(len(key), 0, -1):  # missing: who chose the component, wants it
        if (*key[:length], "type") in sources:
            return sources[(*key[:length], "type")].label
    return file


def _plain_items(
    values: Mapping[str, Any], above: Key, sources: Mapping[Key, Source]
) -> Iterator[tuple[str, Any]]:
    """Yields the items of a dumped model: paths absolute and as text, tuples as lists."""
    for name, value in values.items():
        key = (*above, name)
        if isinstance(value, Mapping):
            yield name, dict(_plain_items(value, key, sources))
        elif isinstance(value, Path):
            yield name, str(_absolute(value, sources.get(key, DEFAULT).folder))
        else:
            yield name, _plain_list(value)


def _plain_list(value: Any) -> Any:
    return [_plain_list(item) for item in value] if isinstance(value, list | tuple) else value


def _absolute(path: Path, folder: Path) -> Path:
    # unlike Path.expanduser, this leaves the "~name" of nobody as it is
    home = os.path.expanduser(path)  # noqa: PTH111
    return Path(os.path.normpath(folder / home))
