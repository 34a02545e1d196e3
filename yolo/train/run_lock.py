"""One run in a folder: a lock that the kernel takes back when its process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from yolo.errors import UserError

NAME = "run.lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""How a file system says that it has none; there, nothing keeps a second run out."""

_held: set[int] = set()
"""Descriptors whose copies a forked process, such as a loader's worker, has to close: the lock
lives as long as any of them, and a worker outlives a killed run by seconds."""


class RunLock:
    """Holds a run's folder from its making until ``release``, or until the process ends.

    Args:
        folder: the run's, which exists.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        try:
            _take(self._descriptor, path)
        except BaseException:
            os.close(self._descriptor)
            raise
        _held.add(self._descriptor)

    def release(self) -> None:
        """Let others in; once more does nothing."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)


def _take(descriptor: int, path: Path) -> None:
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
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def _let_go_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
