"""Whole files: read within a limit, written atomically, and a lock that one process holds."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from yolo.errors import UserError

_NO_FOLDER_SYNC = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADF}
    | {errno.EACCES, errno.EPERM, errno.EISDIR}  # it cannot be opened for reading
)
"""From network and FUSE file systems that write names in their own way."""


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
    """UTF-8, or UTF-16 with its byte order mark as Windows writes it, to text; else a UserError."""
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{called} is no text in UTF-8.") from None


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file or none, see ``atomic_path``; folders are made."""
    path = path.absolute()  # a path without a name is a folder, and refused as one
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_or_refuse(called: str, path: Path, content: bytes, *, remedy: str) -> None:
    """Write what a user named, see `output_path`; folders are made, and a failure is a UserError.

    Messages are worded as in `read_or_refuse`.
    """
    try:
        path = path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with output_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: {called} cannot be written ({reason}); {remedy}") from error


@contextlib.contextmanager
def atomic_path(
    path: Path, *, sync: bool = False, temporary_name: str | None = None
) -> Iterator[Path]:
    """Give an empty temporary file beside ``path`` that is renamed to it at the end, or removed.

    Neither name is followed where somebody else made a link of it: both are replaced.

    Args:
        path: a file, or none yet.
        sync: put the file on the disk before, and its name after the renaming.
        temporary_name: a name of its own instead of a random one with the same suffix, where only
            one process writes: what a killed one left is removed then.
    """
    with _renamed(path, temporary_name) as temporary:
        temporary.touch(exist_ok=False)
        yield temporary
        if sync:
            _sync(temporary, os.O_RDWR)  # Windows syncs no file that is open for reading alone
    if sync:
        _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path, *, temporary_name: str | None = None) -> Iterator[Path]:
    """As `atomic_path` a folder; ``path`` must not exist then, or be an empty folder."""
    with _renamed(path, temporary_name) as temporary:
        temporary.mkdir()
        yield temporary


@contextlib.contextmanager
def output_path(path: Path, *, temporary_name: str | None = None) -> Iterator[Path]:
    """As `atomic_path` for a file that a user named, and who names a link means what it leads to.

    A device or a pipe cannot be replaced: what was written is handed to it at the end.
    """
    name = temporary_name or f".{uuid.uuid4().hex}{path.suffix}"  # writers go by the suffix
    stream = _find_stream(path)
    if stream is None:
        path = path.resolve() if path.is_symlink() else path
        with atomic_path(path, temporary_name=name) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / name
        temporary.touch()
        yield temporary
        print(end="", flush=True)  # the stream may be standard output
        is_own = isinstance(stream, Path)
        with temporary.open("rb") as content, open(stream, "wb", closefd=is_own) as target:
            shutil.copyfileobj(content, target)


def _find_stream(path: Path) -> Path | int | None:
    """What to open where a path leads to a device, a pipe or an open file; else None."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    while path.is_symlink():
        if path.parent.resolve() == Path("/proc/self/fd").resolve():  # such as /dev/stdout
            return int(path.name)
        path = path.parent / path.readlink()
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else path


def check_no_link(path: Path) -> None:
    """For what is written under a name that others know beforehand.

    Raises:
        OSError: it is a link, which may lead anywhere, or a pipe or a device.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "it is a link, a pipe or a device: remove it", str(path))


def open_no_link(path: Path, flags: int) -> int:
    """Open as `os.open`, or make, a file that passes `check_no_link`."""
    check_no_link(path)
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


@contextlib.contextmanager
def _renamed(path: Path, temporary_name: str | None) -> Iterator[Path]:
    """A name beside ``path``, free of what had it; what is made of it replaces ``path``."""
    temporary = path.parent / (temporary_name or f".{uuid.uuid4().hex}{path.suffix}")
    _remove(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)


def _remove(path: Path) -> None:
    """A folder with all that is in it, or a file; of a link the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk, where the file system can do so for a folder."""
    try:
        _sync(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


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
