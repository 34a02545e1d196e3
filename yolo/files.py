"""Files that are there whole or not at all, and work on them that two processes must not share."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def write_whole(path: Path, content: bytes) -> None:
    """Write under another name, then rename; folders are made.

    Raises:
        OSError: the place cannot be written.
    """
    path = path.absolute()  # a path without a name is a folder, and told as one
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, *, waiting: Callable[[], object]) -> Iterator[None]:
    """Let only one process at a time do what stands under this; the others wait for its end.

    The system takes the lock back when its process ends, however it ends.

    Args:
        path: of the lock, an empty file that stays; in a folder that exists.
        waiting: told once, where another one is inside.

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
