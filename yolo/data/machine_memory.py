"""How much memory there is: the machine's, or less where a container was given less."""

from __future__ import annotations

import os
from pathlib import Path

CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux tells a container's own limit: control groups of version 2 and of version 1."""


def memory_bytes() -> int | None:
    """The most that all processes together can use; None where the system does not say."""
    known = [_of_machine(), *map(_limit, CONTAINER_LIMITS)]
    return min(filter(None, known), default=None)


def _of_machine() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return None


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None
