"""Files that others made, read whole: no pipe that never ends, no device, nothing beyond a size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


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
