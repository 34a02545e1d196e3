"""Images that a data set has twice, or that train and val share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from yolo.apps.preflight.checks import Preflight
from yolo.apps.report.page import table
from yolo.data.formats.detection import first_names
from yolo.factory.data import Split

END_BYTES = 4096  # two photographs of one size differ in them


@dataclass(frozen=True, slots=True)
class Copies:
    """Groups of files with the same bytes."""

    leaked: list[list[Path]]  # with members in train and in val
    within: dict[Split, list[list[Path]]]  # by data set, with several members in it

    @classmethod
    def find(cls, preflight: Preflight, *, without: Set[str]) -> Copies:
        """Compare all files that are there but those at fault, which may all be empty."""
        paths = [
            (split, path)
            for split, dataset in preflight.datasets.items()
            for path in map(dataset.image_path, range(len(dataset)))
            if str(path) not in without and path.is_file()
        ]
        groups = [[paths[i] for i in group] for group in same_content([p for _, p in paths])]
        inside: dict[Split, list[list[Path]]] = {}
        for split in preflight.datasets:
            members = [[path for of, path in group if of == split] for group in groups]
            inside[split] = [group for group in members if len(group) > 1]
        leaked = [[p for _, p in group] for group in groups if len({s for s, _ in group}) > 1]
        return cls(leaked, inside)

    def fault(self) -> str | None:
        """A validation on what was trained on has no meaning."""
        if not self.leaked:
            return None
        first = self.leaked[0]
        more = len(self.leaked) - 1
        likewise = f" ({more:,} more images are in both)" if more else ""
        return (
            f"the validation image {first[-1]} is in data.train too, as {first[0]}{likewise}: its "
            "score would say nothing about new images; take it out of one of the two."
        )

    def warnings(self) -> list[str]:
        """Images that a set has twice weigh double."""
        return [
            f"data.{split} has {len(groups):,} images more than once, first "
            f"{first_names(map(str, groups[0]))}"
            for split, groups in self.within.items()
            if groups
        ]

    def figures(self) -> dict[str, object]:
        """All groups, for the json."""
        return {
            "leaked": [list(map(str, group)) for group in self.leaked],
            "duplicates": {s: [list(map(str, g)) for g in d] for s, d in self.within.items()},
        }

    def table(self) -> Markup:
        """All groups, for the page."""
        kinds = {"in both": self.leaked}
        kinds |= {f"twice in {split}": groups for split, groups in self.within.items()}
        rows = [
            [kind, ", ".join(map(str, group))] for kind, groups in kinds.items() for group in groups
        ]
        return table(["where", "files of the same content"], rows)


def same_content(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of files with the same bytes, as indices into ``paths``, ascending.

    Only files of one size are read, at first their ends, and whole only where these are equal.

    Raises:
        OSError: a file cannot be read.
    """
    groups = [list(range(len(paths)))]
    for key in (lambda path: path.stat().st_size, _end, _digest):
        groups = [part for group in groups for part in _parted(group, paths, key)]
    return groups


def _parted(
    group: Sequence[int], paths: Sequence[Path], key: Callable[[Path], Hashable]
) -> list[list[int]]:
    """The members with an equal key, where there are two or more."""
    parts: dict[Hashable, list[int]] = {}
    for index in group:
        parts.setdefault(key(paths[index]), []).append(index)
    return [part for part in parts.values() if len(part) > 1]


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_BYTES), os.SEEK_SET)
        return file.read()


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
