from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from yolo.data import image_cache
from yolo.data.image_cache import MemoryCache, memory_bytes
from yolo.errors import UserError


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a container's limit, which is not there yet."""
    path = tmp_path / "memory.max"
    monkeypatch.setattr(image_cache, "CONTAINER_LIMITS", (path, tmp_path / "nothing"))
    return path


def test_a_container_has_less_than_its_machine(limit: Path) -> None:
    machine = memory_bytes()
    assert machine is not None and machine > 10**8
    for text, wanted in (
        ("64000000\n", 64_000_000),
        ("max\n", machine),
        ("9223372036854771712\n", machine),  # how version 1 says "none"
    ):
        limit.write_text(text)
        assert memory_bytes() == wanted


def test_a_system_that_does_not_say(limit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", refuse)
    assert memory_bytes() is None
    limit.write_text("5")
    assert memory_bytes() == 5


def cache(images: int, side_px: int, limit_bytes: int) -> MemoryCache:
    """Of images of 3000 px sides, which are shrunk."""
    truth = SimpleNamespace(sizes_hw=np.full((images, 2), 3000))
    dataset: Any = SimpleNamespace(annotations=truth)
    return MemoryCache(dataset, side_px=side_px, limit_bytes=limit_bytes)


def test_a_cache_larger_than_the_machine_or_the_container_is_refused(limit: Path) -> None:
    """It would be ended without a word once it has filled."""
    with pytest.raises(UserError, match=r"'ram' asks for 25\d\d\.\d GB, more than this machine"):
        cache(200_000, 2048, 10**13)
    cache(100, 100, 10**9)
    limit.write_text("2000000")
    with pytest.raises(UserError, match=r"'ram' asks for 0\.0 GB, more than this machine can give"):
        cache(100, 100, 10**9)
    cache(100, 100, 10**6)
