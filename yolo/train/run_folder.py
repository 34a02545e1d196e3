"""A run's folder: where it lies, what it is called, which one is the newest."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from pathlib import Path

from yolo.config import Resolved, resolved_yaml
from yolo.errors import UserError


def create_run_folder(directory: Path, *, name: str | None, config_name: str) -> Path:
    """Make ``<directory>/<date>-<time>_<config name>``, or ``<directory>/<name>``.

    Raises:
        UserError: a run of that name exists, or the folder cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if name is not None:
            return _named_folder(directory / name)
        return _dated_folder(directory, config_name)
    except OSError as error:
        raise UserError(f"{directory}: no run can be written here ({error.strerror})") from error


def _named_folder(folder: Path) -> Path:
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise UserError(
            f"{folder}: exists already; choose another --name, or go on with --resume {folder}"
        ) from error
    return folder


def _dated_folder(directory: Path, config_name: str) -> Path:
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}_{config_name}"
    for number in itertools.count(1):
        folder = directory / (stem if number == 1 else f"{stem}_{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise AssertionError("unreachable")


def write_config(folder: Path, resolved: Resolved) -> None:
    """Keep a run's config, as it is from now on, in its ``config.yaml``; whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    path = folder / "config.yaml"
    temporary = folder / "config.yaml.tmp"
    try:
        temporary.write_text(resolved_yaml(resolved), "utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def newest_checkpoint(directory: Path) -> Path:
    """``best.pt`` of the run that wrote one last.

    Raises:
        UserError: there is none.
    """
    found = list(directory.glob("*/best.pt"))
    if not found:
        raise UserError(
            f"{directory}: no run has a best.pt yet; train one with `python main.py`, or name a "
            "checkpoint"
        )
    return max(found, key=lambda path: path.stat().st_mtime)
