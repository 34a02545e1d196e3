"""The files and overrides of a config, merged into one tree that knows where each value stands."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo.config.errors import ConfigError
from yolo.config.read import exists, is_file, is_folder, read_yaml, read_yaml_file
from yolo.config.wording import Key, show
from yolo.errors import did_you_mean

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]

MOST_FILES = 100  # behind one config: a few could otherwise name each other without end


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


@dataclass
class Layers:
    """Reads what a config is made of and lays it together; notes what is wrong, and what went."""

    problems: list[str] = field(default_factory=list)
    replaced: dict[Key, Tree] = field(default_factory=dict)  # sections, by another `type`
    notes: list[str] = field(default_factory=list)  # on class names
    _trees: dict[Path, Tree] = field(default_factory=dict)  # of files; empty while one is read

    def read(self, file: Path, *extended_by: Path) -> Tree:
        """A file, absolute, over all that it extends; each file once, however many extend it.

        ``extended_by`` are the files that led here, from the outermost.
        """
        chain = (*extended_by, file)
        if file in extended_by:
            names = " -> ".join(label_of(link) for link in chain[chain.index(file) :])
            label = label_of(extended_by[-1])
            self.problems.append(f"{label}: extends: makes a circle: {names}")
            return {}
        if file in self._trees:
            return self._trees[file]
        if len(self._trees) == MOST_FILES:
            words = f"leads to more than {MOST_FILES} files; merge some"
            raise ConfigError([f"{label_of(chain[0])}: extends: {words}"])
        tree: Tree = {}
        self._trees[file] = tree
        try:
            values = _read_mapping(file, extended_by)
            bases = _bases(values.pop("extends", []), file)
        except ConfigError as error:
            self.problems += error.problems
            return tree
        for base in bases:
            tree = self.merge(tree, self.read(base, *chain))
        own = tree_of(values, Origin(label_of(file), file.parent))
        self._trees[file] = self.merge(tree, own)
        return self._trees[file]

    def read_overrides(self, overrides: Sequence[str]) -> Tree:
        """`key=value` each, merged first, so that their order matters for equal keys only."""
        tree: Tree = {}
        for place, override in enumerate(overrides):
            if place and not _is_pair(override) and not _is_pair(overrides[place - 1]):
                continue  # one mistake, as in "training.steps 10"
            try:
                tree = Layers().merge(tree, _parse_override(override, overrides[place + 1 :]))
            except ConfigError as error:
                self.problems += error.problems
        return tree

    def merge(self, base: Tree, changes: Tree, above: Key = ()) -> Tree:
        """Lays `changes` over `base`; neither is altered.

        Mappings merge key by key. Lists and scalars replace. A mapping that names another `type`
        than the one below it replaces it too, for the old component's settings mean nothing to the
        new. With the data set `train` go the `class_names` beside it, which are its.
        """
        merged = dict(base)
        for key, change in changes.items():
            below = merged.get(key)
            if isinstance(below, dict) and isinstance(change, dict):
                if is_other := _has_other_type(below, change):
                    self.replaced[(*above, key)] = below
                else:
                    change = self.merge(below, change, (*above, key))
                if key == "train" and "class_names" in merged and "class_names" not in changes:
                    self._note_class_names(merged, changes[key], is_other=is_other)
            merged[key] = change
        return merged

    def _note_class_names(self, merged: Tree, train: Any, *, is_other: bool) -> None:
        """They do not go with another data set, unless its files may number the same classes."""
        names = merged["class_names"]
        if isinstance(names, Leaf) and names.value is not None:
            of = f"data.class_names: {show(names.value)} of {names.origin.label}"
            labels = train.get("labels")
            if is_other:
                self.notes.append(f"{of} do not count for data.train of another type")
            elif isinstance(labels, Leaf):
                place = f"data.train.labels of {labels.origin.label}"
                self.notes.append(f"{of} name the classes of {place} too: set them, if they differ")
        if is_other:
            del merged["class_names"]


def _has_other_type(below: Tree, change: Tree) -> bool:
    old, new = below.get("type"), change.get("type")
    return isinstance(old, Leaf) and isinstance(new, Leaf) and old.value != new.value


def _read_mapping(file: Path, extended_by: tuple[Path, ...]) -> dict[str, object]:
    label = label_of(file)
    try:
        values = read_yaml_file(file, label)
    except ConfigError as error:
        if exists(file):
            raise
        by = f" (extended by {label_of(extended_by[-1])})" if extended_by else ""
        others = file.parent.glob("*.yaml") if is_folder(file.parent) else ()
        near = did_you_mean(file.name, sorted(other.name for other in others))
        elsewhere = sorted((REPOSITORY_ROOT / "configs").rglob("*.yaml")) if not near else ()
        same = [label_of(other) for other in elsewhere if other.stem == file.stem]
        near = did_you_mean(same[0], same) if same else near
        raise ConfigError([f"{label}: no such file{by}{near}"]) from error
    if isinstance(values, dict):
        return values
    # What it holds is not shown: it may be any file of this machine.
    what = "is empty" if values is None else "holds no mapping"
    raise ConfigError([f"{label}: {what}, but must be a mapping such as 'training: {{...}}'"])


def _bases(extends: object, file: Path) -> list[Path]:
    names = [extends] if isinstance(extends, str) else extends
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        words = f"{show(extends)}: must be a path or a list of paths"
        raise ConfigError([f"{label_of(file)}: extends: {words}"])
    bases = [absolute(Path(name), file.parent) for name in reversed(names)]
    return [*dict.fromkeys(bases)][::-1]  # each once, where it comes last


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
    if suffix in (".pt", ".pth") or is_file(Path(override, "config.yaml")):
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
