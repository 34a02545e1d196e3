"""Which files have the same content, without reading most of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

END_BYTES = 4096
"""Two photographs of one size differ in them."""


def same_content(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of files with the same bytes, as indices into ``paths``, ascending.

    Only files of one size are read, at first their ends, and whole only where these are equal.

    Raises:
        OSError: a file cannot be read.
    """
    groups = [list(range(len(paths)))]
    for key in _KEYS:
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


def _size(path: Path) -> int:
    return path.stat().st_size


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_BYTES), os.SEEK_SET)
        return file.read()


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


_KEYS: tuple[Callable[[Path], Hashable], ...] = (_size, _end, _digest)
"""The cheapest first."""
