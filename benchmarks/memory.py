"""Memory of processes, as Linux counts it."""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, TypeVar

from yolo.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

MB = 1e6
GB = 1e9


def in_fresh_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do some work in a process that has done nothing else, and wait for what it returns.

    Raises:
        UserError: the process was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        try:
            return pool.submit(work, *args, **kwargs).result()
        except BrokenProcessPool:
            raise UserError(
                f"the process of {work.__name__} was killed: most often the memory was used up; "
                "free some, or choose other cases."
            ) from None


def peak_bytes() -> int:
    """The largest memory that this process has had resident.

    Linux's high-water mark belongs to the program. ``getrusage``, the way on other systems, counts
    what the process that started it had resident, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return _kilobytes(status, "VmHWM") * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def proportional_bytes(processes: Iterable[int]) -> int:
    """The anonymous memory of processes, what they share being counted once.

    Anonymous alone: the share of the libraries' pages depends on who else runs on the machine.
    """
    rollups = (Path(f"/proc/{process}/smaps_rollup") for process in processes)
    return sum(_kilobytes(rollup, "Pss_Anon") for rollup in rollups) * 1024


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library (glibc) can be told to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(path: Path, field: str) -> int:
    lines = path.read_text().splitlines()
    return next(int(text.split()[1]) for text in lines if text.startswith(f"{field}:"))
