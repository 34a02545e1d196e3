"""Trees of config values that know where each value was written, and how they are merged."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Key = tuple[str | int, ...]
"""A place in a config: names of mappings, and indices into lists."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where values were written.

    Attributes:
        label: its name in messages and in the saved config.
        folder: where the relative paths among its values start from.
    """

    label: str
    folder: Path


@dataclass(frozen=True)
class Leaf:
    """Anything but a mapping: a scalar or a whole list."""

    value: object
    source: Source


Tree = dict[str, "Tree | Leaf"]


def tree_of(values: Mapping[str, object], source: Source) -> Tree:
    """Marks every value of nested mappings with its source."""
    return {
        key: tree_of(value, source) if isinstance(value, Mapping) else Leaf(value, source)
        for key, value in values.items()
    }


def merge(base: Tree, changes: Tree) -> Tree:
    """Lays `changes` over `base`; neither is altered.

    Mappings merge key by key. Lists and scalars replace. A mapping that names another `type` than
    the one below it replaces it too, for the old component's settings mean nothing to the new.
    """
    merged = dict(base)
    for key, change in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(change, dict) and not _retyped(below, change):
            merged[key] = merge(below, change)
        else:
            merged[key] = change
    return merged


def _retyped(below: Tree, change: Tree) -> bool:
    old, new = below.get("type"), change.get("type")
    return isinstance(old, Leaf) and isinstance(new, Leaf) and old.value != new.value


def values_of(tree: Tree) -> dict[str, object]:
    """The plain values of a tree."""
    return {
        key: node.value if isinstance(node, Leaf) else values_of(node) for key, node in tree.items()
    }


def sources_of(tree: Tree, above: Key = ()) -> Iterator[tuple[Key, Source]]:
    """Yields the key and source of every leaf."""
    for name, node in tree.items():
        if isinstance(node, Leaf):
            yield (*above, name), node.source
        else:
            yield from sources_of(node, (*above, name))
