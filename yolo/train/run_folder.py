"""A run's folder: where it lies, what it is called, and the lock that lets one run in."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import socket
import time
from pathlib import Path
from typing import ClassVar

from yolo.errors import UserError
from yolo.files import atomic_write

LOCK_NAME = "run.lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""From a file system that has none; there, nothing keeps a second run out."""


def create_run_folder(directory: Path, *, name: str | None, config_name: str) -> Path:
    """Make ``<directory>/<date>-<time>_<config name>``, or ``<directory>/<name>``.

    Raises:
        UserError: a run of that name exists, or the folder cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stem = name or f"{time.strftime('%Y%m%d-%H%M%S')}_{config_name}"
        for number in itertools.count(1):
            folder = directory / (stem if number == 1 else f"{stem}_{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError as error:
                if name is not None:
                    raise UserError(
                        f"{folder}: exists already; choose another --name, or go on with --resume "
                        f"{folder}"
                    ) from error
        return folder
    except OSError as error:
        raise UserError(f"{directory}: no run can be written here ({error.strerror})") from error


def write_config(folder: Path, text: str) -> None:
    """Keep a run's config, as it is from now on, in its ``config.yaml``."""
    path = folder / "config.yaml"
    try:
        atomic_write(path, text.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def newest_checkpoint(directory: Path) -> Path:
    """``best.pt`` of the run that wrote one last; a ``UserError`` where there is none."""
    found = list(directory.glob("*/best.pt"))
    if not found:
        raise UserError(
            f"{directory}: no run has a best.pt yet; train one with `python main.py`, or name a "
            "checkpoint"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


class RunLock:
    """Holds a run's folder until ``release``, or until the process ends, however it ends.

    Args:
        folder: the run's, which exists.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """

    _held: ClassVar[set[int]] = set()
    """Descriptors whose copies a forked process, such as a loader's worker, has to close: the lock
    lives as long as any of them, and a worker outlives a killed run by seconds."""

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _lock(self._descriptor, path)
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        self._held.add(self._descriptor)

    def release(self) -> None:
        """Let others in; once more does nothing."""
        if self._descriptor in self._held:
            self._held.discard(self._descriptor)
            os.close(self._descriptor)

    @classmethod
    def _close_in_child(cls) -> None:
        for descriptor in cls._held:
            os.close(descriptor)
        cls._held.clear()


os.register_at_fork(after_in_child=RunLock._close_in_child)


def _lock(descriptor: int, path: Path) -> None:
    """Take the lock, and write into it whose it is."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
        raise UserError(
            f"{path.parent}: another run is at work here ({owner or 'it has just begun'}); wait "
            "for its end, or stop it"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise UserError(f"{path}: cannot be locked ({error.strerror})") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
