"""A long training neither grows nor leaks."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.tiny import fork, start
from tests.faults.trial import Property

PROPERTY = "14 Soak"
LARGEST_SLOPE = 0.01
"""Growth of the resident memory in 10,000 steps, as a share of it."""

SETTLED = 0.3
"""The share of the run before which caches and allocators still fill up."""

STEPS = 20_000
SETTINGS = (
    f"training.steps={STEPS}",
    f"evaluation.every={STEPS // 20}",
    "training.checkpoint_every=1000",
    "logging.every=50",
    "evaluation.pictures=0",
    "data.image_size=64",
    "training.batch_size=1",
    "training.micro_batch_size=1",
)

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _Reading:
    step: int
    memory: int
    descriptors: int
    threads: int


def soak(seed: int, folder: Path) -> None:
    """20,000 steps with 20 evaluations: memory grows by less than 1% in 10,000 steps, descriptors
    and threads do not.
    """
    del seed
    run = folder / "soak"
    process = fork(lambda: start(run, *SETTINGS), folder / "run.txt")
    readings, code = [], None
    while code is None:
        time.sleep(0.2)
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
        elif (reading := _read(process, run)) is not None:
            readings.append(reading)
    assert code == 0, (folder / "run.txt").read_text()[-500:]
    _check(readings, STEPS)


def _read(process: int, run: Path) -> _Reading | None:
    """What the kernel counts of a process, at the step that it logged last."""
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            step = json.loads(file.read().splitlines()[-1])["step"]
        status = Path(f"/proc/{process}/statm").read_text().split()
        return _Reading(
            step=step,
            memory=int(status[1]) * PAGE_BYTES,
            descriptors=_count(f"/proc/{process}/fd"),
            threads=_count(f"/proc/{process}/task"),
        )
    except (OSError, IndexError, json.JSONDecodeError):
        return None


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def _check(readings: list[_Reading], steps: int) -> None:
    living = [reading for reading in readings if reading.descriptors]  # one that ends has none
    settled = [reading for reading in living if reading.step > SETTLED * steps]
    assert len(settled) > 20, f"only {len(settled)} readings"
    memory = np.array([reading.memory for reading in settled], float)
    slope = np.polyfit([reading.step for reading in settled], memory, 1)[0] * 10_000
    share = slope / memory.mean()
    for name in ("descriptors", "threads"):
        counts = np.array([getattr(reading, name) for reading in settled])
        first, last = counts[: len(counts) // 3], counts[-len(counts) // 3 :]
        # most of the time, and at the least: a file is open while it is written
        was, now = ((part.min(), np.median(part)) for part in (first, last))
        print(f"{name}: at least {was[0]}, mostly {was[1]:g}, then {now[0]} and {now[1]:g}")
        assert now == was, f"{name}: {counts.tolist()}"
    print(f"memory {memory.mean() / 2**20:.0f} MiB, {share:+.3%} in 10,000 steps")
    assert share < LARGEST_SLOPE, f"memory grows by {share:.2%} in 10,000 steps"


TRIALS = [
    Property(soak, full=1, quick=0, limit_s=1500),
]
