"""What folders of a data set hold, and which file of one belongs to which of another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

from yolo.data.annotations import Findings
from yolo.data.formats.detection import first_names
from yolo.errors import UserError


def list_entries(called: str, folder: Path | str) -> list[os.DirEntry[str]]:
    """What a folder itself holds; a UserError that names it as ``called`` if it is unreadable."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"the {called} {folder} cannot be read ({error.strerror}); check its path."
        ) from error


def leads_to(kind: Callable[[], bool]) -> bool:
    """What an entry says, as ``entry.is_dir``; a link that leads in circles is neither."""
    with suppress(OSError):
        return kind()
    return False


def list_files(called: str, root: Path) -> tuple[list[str], list[str]]:
    """The files below a folder, by alphabet, and files and folders that are hidden (".name").

    Links to folders are followed, but for those that lead back up.
    """
    files, hidden = [], []
    start = (str(root), "", (os.path.realpath(root),))
    pending: list[tuple[str, str, tuple[str, ...]]] = [start]
    while pending:
        folder, prefix, above = pending.pop()
        for entry in list_entries(called, folder):
            name = f"{prefix}{entry.name}"
            if entry.name.startswith("."):
                hidden.append(name)
            elif not leads_to(entry.is_dir):
                files.append(name)
            elif (real := os.path.realpath(entry.path)) not in above:
                pending.append((entry.path, f"{name}/", (*above, real)))
    return sorted(files), sorted(hidden)


def match_files(images: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Image -> its text file: a.txt or a.jpg.txt for a.jpg, at last in upper or lower case."""
    found: dict[str, str] = {}
    folds: tuple[Callable[[str], str], ...] = (str, str.casefold)
    for fold, keeps_suffix in product(folds, (False, True)):
        left = {fold(text): text for text in sorted(set(texts).difference(found.values()))}
        for image in images:
            stem = image if keeps_suffix else image[: image.rindex(".")]
            if image not in found and (text := left.get(fold(f"{stem}.txt"))):
                found[image] = text
    return found


def add_left_over(
    findings: Findings, left_over: Mapping[str, Sequence[str]], images: int
) -> Findings:
    """With a note on each kind of files that have no part in a data set, a warning if over 5 %.

    Args:
        left_over: kind -> the names.
        images: how many the data set has.
    """
    parts: dict[bool, list[str]] = {False: [*findings.notes], True: [*findings.warnings]}
    for kind, names in left_over.items():
        if names:
            text = f"{len(names):,} {kind} ({first_names(names)})"
            parts[len(names) > 0.05 * images].append(text)
    return replace(findings, notes=tuple(parts[False]), warnings=tuple(parts[True]))
