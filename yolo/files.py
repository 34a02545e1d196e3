"""Atomic writing, and a lock that two processes must not hold at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file or none, see ``atomic_path``; folders are made.

    Raises:
        OSError: the place cannot be written.
    """
    path = path.absolute()  # a path without a name is a folder, and refused as one
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_path(
    path: Path, *, sync: bool = False, temporary_name: str | None = None
) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that is renamed to it at the end, or removed.

    Args:
        path: a file; or a folder that does not exist or is empty.
        sync: put the file on the disk before, and its name after the renaming.
        temporary_name: a name of its own instead of a random one with the same suffix, where only
            one process writes: what a killed one left is overwritten then.

    Raises:
        OSError: the place cannot be written.
    """
    temporary = path.parent / (temporary_name or f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        if sync:
            _sync(temporary)
        os.replace(temporary, path)
        if sync:
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, *, waiting: Callable[[], object]) -> Iterator[None]:
    """Let one process at a time run what stands under this; the others wait for its end.

    The system releases the lock when its process ends, however it ends.

    Args:
        path: of the lock, an empty file that stays; in a folder that exists.
        waiting: called once, where another process holds the lock.

    Raises:
        OSError: the place cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
