"""Files that others made, read whole: no pipe that never ends, no device, nothing beyond a size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from yolo.errors import UserError


def read_regular(path: Path, largest_bytes: int | None = None) -> bytes:
    """Read a file, or what a link leads to.

    Args:
        path: of the file.
        largest_bytes: a larger one is not read; None reads any.

    Raises:
        OSError: there is no such file, it cannot be read, it is too large, or it is a folder, a
            pipe, a socket or a device; ``strerror`` tells in words.
    """
    status = path.stat()  # before it is opened: the mere opening of a pipe waits for a writer
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", str(path))
    if largest_bytes is None:
        return path.read_bytes()
    with path.open("rb") as file:
        content = file.read(largest_bytes + 1) if status.st_size <= largest_bytes else None
    if content is None or len(content) > largest_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {largest_bytes >> 20:,} MiB", str(path))
    return content


def read_or_refuse(
    called: str, path: Path, largest_bytes: int | None = None, *, remedy: str = ""
) -> bytes:
    """Read as `read_regular`.

    Args:
        called: what the file is, for messages: "the list".
        path, largest_bytes: as `read_regular`.
        remedy: ends the sentence about a file that is missing: "; restore it".

    Raises:
        UserError: the file is missing or cannot be read.
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
    """Read a text in UTF-8, with or without a byte order mark, as `read_or_refuse`.

    Raises:
        UserError: the file is missing, cannot be read or is no such text.
    """
    content = read_or_refuse(called, path, largest_bytes, remedy=remedy)
    return decode_text(f"{called} {path}", content)


def decode_text(called: str, content: bytes) -> str:
    """UTF-8, with or without a byte order mark, to text.

    Raises:
        UserError: it is no such text.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{called} is no text in UTF-8.") from None
