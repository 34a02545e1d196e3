"""A run's folder: its name, the lock that lets one run in, and what a run goes on from."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from yolo.errors import UserError
from yolo.files import atomic_write, open_no_link
from yolo.train.checkpoint import load_checkpoint

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_NAME = "run.lock"


def create_run_folder(directory: Path, *, name: str | None, config_name: str) -> Path:
    """Make ``<directory>/<date>-<time>_<config name>``, or ``<directory>/<name>``.

    Raises:
        UserError: the name is taken.
        OSError: it cannot be made.
    """
    check_run_folder(directory, name)
    directory.mkdir(parents=True, exist_ok=True)
    stem = name or f"{time.strftime('%Y%m%d-%H%M%S')}_{config_name}"
    folder, number = directory / stem, 1
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
        check_run_folder(directory, name)
        number += 1
        folder = directory / f"{stem}_{number}"


def check_run_folder(directory: Path, name: str | None) -> None:
    """Refuse what ``create_run_folder`` would, and as it does; for before a long preparation."""
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    wrong = errno.EACCES if place.is_dir() else errno.ENOTDIR
    if wrong == errno.ENOTDIR or not os.access(place, os.W_OK | os.X_OK):
        raise OSError(wrong, os.strerror(wrong), str(place))
    if name is not None and (folder := directory / name).exists():
        advice = f"choose another --name, or go on with --resume {folder}"
        raise UserError(f"{folder}: exists already; {advice}")


def write_config(folder: Path, text: str) -> None:
    """Keep a run's config, as it is from now on, in its ``config.yaml``."""
    path = folder / "config.yaml"
    try:
        atomic_write(path, text.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def checkpoint_file(path: Path) -> Path:
    """The path itself, or ``best.pt`` in it where it is a run's folder."""
    if not path.is_dir() or (path / "best.pt").is_file():
        return path / "best.pt" if path.is_dir() else path
    found = next((file for name in ("last.pt", "*/best.pt") for file in path.glob(name)), None)
    advice = f"; name {found}" if found else ", nor do the folders in it; name a checkpoint"
    raise UserError(f"{path}: this folder has no best.pt{advice}")


def find_checkpoint(named: Path | None, directory: Path) -> Path:
    """``checkpoint_file`` of what was named, or of the run in a folder that wrote one last."""
    if named is not None:
        return checkpoint_file(named)
    found = list(directory.glob("*/best.pt"))
    if not found:
        raise UserError(
            f"{directory}: no run has a best.pt yet; train one with `python main.py`, or name a "
            "checkpoint"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


class RunLock:
    """Holds a run's folder until ``release``, or until the process ends, however it ends."""

    _held: ClassVar[set[int]] = set()
    """Descriptors whose copies a forked process, such as a loader's worker, has to close: the lock
    lives as long as any of them, and a worker outlives a killed run by seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder, path = folder, folder / LOCK_NAME
        try:
            self._descriptor = open_no_link(path, os.O_RDWR)
            self._held.add(self._descriptor)
            try:
                _lock(self._descriptor, path)
                self._place = self._find_place()
            except BaseException:
                self.release()
                raise
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error

    def release(self) -> None:
        """Let others in; once more does nothing."""
        if self._descriptor in self._held:
            self._held.discard(self._descriptor)
            os.close(self._descriptor)

    def check_place(self) -> None:
        """A UserError where the folder, or the lock in it, is no longer the one that was locked."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self._find_place() == self._place:
                return
        raise UserError(
            f"{self._folder}: is no longer the folder of this run: while it trained, somebody "
            "moved, replaced or emptied it; put it back, then go on with --resume"
        )

    def _find_place(self) -> list[tuple[int, int]]:
        """Device and inode of the folder and of the lock."""
        found = map(os.stat, (self._folder, self._folder / LOCK_NAME))
        return [(status.st_dev, status.st_ino) for status in found]

    @classmethod
    def _close_in_child(cls) -> None:
        for descriptor in cls._held:
            os.close(descriptor)
        cls._held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RunLock._close_in_child)


def _lock(descriptor: int, path: Path) -> None:
    """Take the lock, and write into it whose it is."""
    try:
        _take(descriptor)
    except BlockingIOError as error:
        owner = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        raise UserError(
            f"{path.parent}: another run is at work here ({owner or 'it has just begun'}); wait "
            "for its end, or stop it"
        ) from error
    except OSError as error:
        # on a file system that has no locks nothing keeps a second run out
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise UserError(f"{path}: cannot be locked ({error.strerror})") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _take(descriptor: int) -> None:
    """Lock an open file, or raise a BlockingIOError where another process has."""
    if sys.platform == "win32":
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # nobody else can read what is locked there
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a run goes on from, and why it is not ``last.pt``."""

    path: Path
    content: dict[str, Any]
    complaint: str | None


def newest_whole_checkpoint(folder: Path) -> Origin:
    """``last.pt``, or ``best.pt`` where that is damaged; one that may not be read is an error."""
    last, best = folder / "last.pt", folder / "best.pt"
    try:
        return Origin(last, load_checkpoint(last), None)
    except UserError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        damage = str(error)
    try:
        content = load_checkpoint(best)
    except UserError as error:
        raise UserError(
            f"{damage}; {error}; so nothing is left to go on from, begin anew"
        ) from error
    step = content["progress"]["step"]
    return Origin(best, content, f"{damage}; going on from {best}, which is of step {step}")
