"""Whole files: read within a limit, written atomically, and a lock that one process holds."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from yolo.errors import UserError


def read_regular(path: Path, largest_bytes: int | None = None) -> bytes:
    """Read a file, or what a link leads to; a larger one than ``largest_bytes`` is not read.

    Raises:
        OSError: there is no such file, it cannot be read, it is too large, or it is a folder, a
            pipe that may never end, a socket or a device; ``strerror`` tells in words.
    """
    status = path.stat()  # before it is opened: the mere opening of a pipe waits for a writer
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", str(path))
    if largest_bytes is None:
        return path.read_bytes()
    content = b""
    if status.st_size <= largest_bytes:
        with path.open("rb") as file:
            # `read` reserves as much as it is asked for: 1 GB takes longer than the reading itself
            content = file.read(status.st_size + 1)
            if len(content) > status.st_size:  # it grows
                content += file.read(largest_bytes + 1 - len(content))
    if max(status.st_size, len(content)) > largest_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {largest_bytes >> 20:,} MiB", str(path))
    return content


def read_or_refuse(
    called: str, path: Path, largest_bytes: int | None = None, *, remedy: str = ""
) -> bytes:
    """Read as `read_regular`, with a UserError where that fails.

    Messages call the file ``called``, such as "the list"; ``remedy`` ends the one about a file that
    is missing: "; restore it".
    """
    try:
        return read_regular(path, largest_bytes)
    except FileNotFoundError:
        raise UserError(f"{called} {path} does not exist{remedy}.") from None
    except OSError as error:
        raise UserError(f"{called} {path} cannot be read: {error.strerror}.") from None


def read_text(
    called: str, path: Path, largest_bytes: int | None = None, *, remedy: str = ""
) -> str:
    """Read a text in UTF-8, with or without a byte order mark, as `read_or_refuse`."""
    content = read_or_refuse(called, path, largest_bytes, remedy=remedy)
    return decode_text(f"{called} {path}", content)


def decode_text(called: str, content: bytes) -> str:
    """UTF-8, with or without a byte order mark, to text; else a UserError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{called} is no text in UTF-8.") from None


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file or none, see ``atomic_path``; folders are made."""
    path = path.absolute()  # a path without a name is a folder, and refused as one
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_or_refuse(called: str, path: Path, content: bytes, *, remedy: str) -> None:
    """Write as `atomic_write`, with a UserError where that fails; words as in `read_or_refuse`."""
    try:
        atomic_write(path, content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: {called} cannot be written ({reason}); {remedy}") from error


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
            if temporary.is_dir() and not temporary.is_symlink():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, waiting: Callable[[], object]) -> Iterator[None]:
    """Let one process at a time run what stands under this; the others wait for its end.

    The system releases the lock, an empty file that stays, when its process ends, however it ends.
    ``waiting`` is called once, where another process holds it.
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
