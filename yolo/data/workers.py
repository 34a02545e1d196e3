"""The loader's worker processes: how they start, end with their parent, and are missed."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import threading
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any

import cv2
from torch.utils.data import DataLoader

from yolo.errors import UserError

_SET_PARENT_DEATH_SIGNAL = 1
"""Linux's PR_SET_PDEATHSIG."""

_OF_THE_MAIN_PROCESS = (signal.SIGINT, signal.SIGTERM)
"""Signals that come to the whole process group; who answers them still needs its batches."""


def start_method() -> str:
    """Fork where it is safe: it shares the annotations' memory and imports nothing again."""
    methods = multiprocessing.get_all_start_methods()
    return "fork" if sys.platform == "linux" and "fork" in methods else "spawn"


def start_workers(loader: DataLoader) -> Any:
    """Start the workers, and leave their deaths to be noticed where a batch is waited for.

    PyTorch's handler of SIGCHLD raises wherever the process happens to be, also where it is just
    ending or writing a checkpoint. Its wait for a batch looks after the workers every 5 seconds.

    SIGINT and SIGTERM wait meanwhile, and for good in the processes started: one that came between
    a worker's start and ``prepare_worker`` would end it.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_MAIN_PROCESS)
    try:
        batches: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)
    # Where something still holds the iterator, a traceback for instance, Python's end sends its
    # workers a SIGTERM, which they do not heed, and waits for them: they have to be gone by then.
    Finalize(batches, _kill, args=(batches._workers,), exitpriority=0)
    return batches


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        worker.kill()


def prepare_worker(worker: int) -> None:
    """What a worker does first; its number decides nothing."""
    del worker
    cv2.setNumThreads(0)  # under spawn nothing is inherited
    for number in _OF_THE_MAIN_PROCESS:
        signal.signal(number, signal.SIG_IGN)
    # A thread of multiprocessing's hands out the tensors' files, and reports by this hook, with a
    # traceback, a main process that no longer wants them. Errors of samples go another way.
    sys.excepthook = lambda *error: None
    if sys.platform == "linux":
        # The kernel kills this worker with its parent; PyTorch's own look takes 5 seconds. So long
        # a killed rank's forked workers would keep its connections to the other ranks open.
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def end_workers(batches: Any) -> None:
    """Let the workers of an iterator end now, whoever still holds it; does nothing twice."""
    if (end := getattr(batches, "_shutdown_workers", None)) is not None:
        end()


def lost_worker(error: Exception, batches: Any) -> UserError | None:
    """What to raise where a worker of PyTorch's iterator died, or None for any other error.

    Args:
        error: raised where a batch was waited for; does not always name the worker.
        batches: the iterator.
    """
    message, workers = str(error), getattr(batches, "_workers", [])
    if "DataLoader worker" in message and ("killed by" in message or "exited" in message):
        reason = message.splitlines()[0].rstrip(". ")
    else:
        ended = wait([worker.sentinel for worker in workers], timeout=1) if workers else []
        pids = [str(worker.pid) for worker in workers if worker.sentinel in ended]
        if not pids:
            return None
        reason = f"process {', '.join(pids)} ended"
    return UserError(
        f"a data loading process was lost ({reason}): most often the memory, or the shared memory "
        "in /dev/shm, was used up; use fewer workers (data.workers), or none."
    )
