"""How much memory there is: the machine's, or less where a container was given less."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""A container's own limit on Linux: control groups of version 2 and of version 1."""


def memory_bytes() -> int | None:
    """The most that all processes together can use; None where it is not known."""
    known = []
    with suppress(AttributeError, ValueError, OSError):  # not on every system
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            known.append(int(path.read_text()))
    return min(filter(None, known), default=None)
