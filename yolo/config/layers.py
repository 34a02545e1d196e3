"""The files and overrides of a config, merged into one tree that knows where each value stands."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo.config.errors import ConfigError
from yolo.config.read import read_yaml, read_yaml_file
from yolo.config.wording import Key, show
from yolo.errors import did_you_mean

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]

MOST_FILES = 100
"""Behind one config: a few small ones could otherwise name each other without end."""


@dataclass(frozen=True)
class Origin:
    """Where values were written: its name in messages, and where their relative paths start."""

    label: str
    folder: Path


DEFAULT = Origin("default", REPOSITORY_ROOT)
COMMAND_LINE = Origin("command line", REPOSITORY_ROOT)


@dataclass(frozen=True)
class Leaf:
    """Anything but a mapping: a scalar or a whole list."""

    value: object
    origin: Origin


Tree = dict[str, "Tree | Leaf"]
"""Values that know where each was written."""

Replaced = dict[Key, "Tree"]
"""Sections that another `type` replaced, by their keys."""


def read_tree(
    file: Path,
    extended_by: tuple[Path, ...],
    trees: dict[Path, Tree],
    problems: list[str],
    replaced: Replaced,
) -> Tree:
    """Reads a file over everything that it extends; each file once, however many extend it.

    Args:
        file: absolute.
        extended_by: the files that led here, from the outermost.
        trees: of the files that were read, empty where one is still read; filled in.
        problems: what is wrong is added here.
        replaced: as `merge` fills it in.
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
        tree = merge(tree, read_tree(base, chain, trees, problems, replaced), replaced)
    trees[file] = merge(tree, tree_of(values, Origin(label_of(file), file.parent)), replaced)
    return trees[file]


def _read_mapping(
    file: Path, extended_by: tuple[Path, ...], problems: list[str]
) -> dict[str, object]:
    label = label_of(file)
    try:
        values = read_yaml_file(file, label)
    except ConfigError as error:
        # unlike Path.exists and Path.is_dir, os.path's raise nothing
        if os.path.exists(file):  # noqa: PTH110
            problems.extend(error.problems)
            return {}
        by = f" (extended by {label_of(extended_by[-1])})" if extended_by else ""
        others = file.parent.glob("*.yaml") if os.path.isdir(file.parent) else ()  # noqa: PTH112
        near = did_you_mean(file.name, sorted(other.name for other in others))
        elsewhere = sorted((REPOSITORY_ROOT / "configs").rglob("*.yaml")) if not near else ()
        same = [label_of(other) for other in elsewhere if other.stem == file.stem]
        near = did_you_mean(same[0], same) if same else near
        problems.append(f"{label}: no such file{by}{near}")
        return {}
    if isinstance(values, dict):
        return values
    # What it holds is not shown: it may be any file of this machine.
    what = "is empty" if values is None else "holds no mapping"
    problems.append(f"{label}: {what}, but must be a mapping such as 'training: {{...}}'")
    return {}


def _bases(extends: object, file: Path, problems: list[str]) -> list[Path]:
    names = [extends] if isinstance(extends, str) else extends
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        problems.append(
            f"{label_of(file)}: extends: {show(extends)}: must be a path or a list of paths"
        )
        return []
    bases = [absolute(Path(name), file.parent) for name in reversed(names)]
    return [*dict.fromkeys(bases)][::-1]  # each once, where it comes last


def override_tree(overrides: Sequence[str], problems: list[str]) -> Tree:
    """Reads `key=value` each, merged first, so that their order matters for equal keys only."""
    tree: Tree = {}
    for place, override in enumerate(overrides):
        if place and not _is_pair(override) and not _is_pair(overrides[place - 1]):
            continue  # one mistake, as in "training.steps 10"
        try:
            tree = merge(tree, _parse_override(override, overrides[place + 1 :]), {})
        except ConfigError as error:
            problems.extend(error.problems)
    return tree


def _is_pair(override: str) -> bool:
    return "=" in override and override.strip("=") != ""


def _parse_override(override: str, following: Sequence[str]) -> Tree:
    label = COMMAND_LINE.label
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError([f"{label}: {show(override)}: {_usage(override, following)}"])
    if parts == ["extends"]:
        raise ConfigError([f"{label}: extends: can only stand in a file"])
    tree = tree_of({parts[-1]: read_yaml(text, f"{label}: {key.strip()}")}, COMMAND_LINE)
    for part in reversed(parts[:-1]):
        tree = {part: tree}
    return tree


def _usage(override: str, following: Sequence[str]) -> str:
    """What to write instead of a word that is no `key=value`."""
    suffix = Path(override).suffix.lower()
    if suffix in (".yaml", ".yml"):
        return f"a config is named with --config {override}"
    if suffix in (".pt", ".pth") or Path(override, "config.yaml").is_file():
        return f"a run is gone on with by --resume {override}"
    usage = "an override is written key=value, for example "
    words = [word for word in following if word.strip("=:")][:1]
    if re.fullmatch(r"\w+(\.\w+)+[:=]?", override) and words and "." in override[:-1]:
        return f"{usage}{override.rstrip(':=')}={words[0].strip('=:')}"
    return f"{usage}training.batch_size=16"


def tree_of(values: Mapping[str, object], origin: Origin) -> Tree:
    """Values that all were written in one place."""
    return {
        key: tree_of(value, origin) if isinstance(value, Mapping) else Leaf(value, origin)
        for key, value in values.items()
    }


def merge(base: Tree, changes: Tree, replaced: Replaced, above: Key = ()) -> Tree:
    """Lays `changes` over `base`; neither is altered.

    Mappings merge key by key. Lists and scalars replace. A mapping that names another `type` than
    the one below it replaces it too, for the old component's settings mean nothing to the new; it
    is noted in `replaced`. With the data set `train` go the `class_names` beside it, which are its.
    """
    merged = dict(base)
    for key, change in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(change, dict):
            old, new = below.get("type"), change.get("type")
            if not (isinstance(old, Leaf) and isinstance(new, Leaf) and old.value != new.value):
                change = merge(below, change, replaced, (*above, key))
            else:
                replaced[(*above, key)] = below
                if key == "train" and "class_names" in merged and "class_names" not in changes:
                    replaced[(*above, key)] = {**below, "class_names": merged.pop("class_names")}
        merged[key] = change
    return merged


def values_of(tree: Tree) -> dict[str, object]:
    """The plain values of a tree."""
    return {
        key: node.value if isinstance(node, Leaf) else values_of(node) for key, node in tree.items()
    }


def label_of(file: Path) -> str:
    """A file's name in messages: from the repository's root where it lies under it."""
    under = file.is_relative_to(REPOSITORY_ROOT)
    return file.relative_to(REPOSITORY_ROOT).as_posix() if under else str(file)


def absolute(path: Path, folder: Path) -> Path:
    """A path that starts from a folder, or from the user's home where it begins with "~"."""
    # unlike Path.expanduser, this leaves the "~name" of nobody as it is
    home = os.path.expanduser(path)  # noqa: PTH111
    return Path(os.path.normpath(folder / home))
