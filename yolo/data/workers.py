"""The loader's worker processes: started, lost, ended; and what they run out of."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from multiprocessing.util import Finalize
from typing import Any

import cv2
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from yolo.errors import STOP_SIGNALS, UserError

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""Fork where it is safe: it shares the annotations' memory and imports nothing again."""

END_SECONDS = 1.0
"""How long a worker may take to end by itself."""

WAIT_SECONDS = 1.0
"""A wait for a batch is taken up again so often. One that a signal came just before, or that it did
not wake because another thread took it, would go on for PyTorch's 5 seconds."""

_SHARED_MEMORY = (
    "the shared memory in /dev/shm was used up; make it larger (docker run --shm-size=8g or "
    "--ipc=host)"
)
_OPEN_FILES = "too many files were open; allow more (ulimit -n 4096)"
_MEMORY = "the memory was used up; make the micro-batch or the images smaller"
_UNKNOWN = f"most often {_MEMORY}"
_REMEDIES = {
    errno.ENOSPC: _SHARED_MEMORY,
    -getattr(signal, "SIGBUS", 7): _SHARED_MEMORY,  # what was promised was not there
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: "no more processes are allowed; allow more (ulimit -u)",
}
"""By what ran out, or the exit code of the process that needed it."""

_FEWER = "or use fewer workers (data.workers), or none (data.workers=0)"


def shortage(error: BaseException) -> int | None:
    """What ran out, as its ``errno``, where that is why an error came; else None.

    PyTorch's errors and those of tensors that arrived without their files say it in words alone.
    """
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    number, text = getattr(error, "errno", None), str(error)
    if number is None:
        text = text.replace("received 0 items of ancdata", os.strerror(errno.EMFILE))
        number = next((n for n in _REMEDIES if n > 0 and os.strerror(n) in text), None)
    return number if number in _REMEDIES else None


def explain_shortage(error: BaseException) -> str | None:
    """The sentence for what ran out in the loader, where that is why an error came; else None."""
    number = shortage(error)
    ended = "the loader of the images ended"
    return None if number is None else f"{ended}: {_REMEDIES[number]}, {_FEWER}"


class WorkerBatches(_MultiProcessingDataLoaderIter):
    """PyTorch's iterator, whose waits a signal or a stopped worker does not draw out."""

    def _try_get_data(self, timeout: float = WAIT_SECONDS) -> tuple[bool, Any]:
        return super()._try_get_data(WAIT_SECONDS)

    def _shutdown_workers(self) -> None:
        """End the workers; by force where one is stopped or waits for a disk that is gone.

        PyTorch would wait 10 seconds for each, and calls this after the last batch too.
        """
        if self._shutdown or sys.is_finalizing():  # then they are killed, and no thread can start
            return
        ending = threading.Thread(target=super()._shutdown_workers, daemon=True)
        try:
            ending.start()
            ending.join(END_SECONDS)
        finally:
            for worker in self._workers:
                worker.kill()
        ending.join(END_SECONDS)

    end = _shutdown_workers


def start_workers(loader: DataLoader) -> WorkerBatches:
    """Start the workers, and leave their deaths to be noticed where a batch is waited for.

    PyTorch's handler of SIGCHLD raises wherever the process happens to be, also where it is just
    ending or writing a checkpoint. Its wait for a batch looks after the workers every 5 seconds.

    Raises:
        UserError: they cannot all be started.
    """
    _allow_open_files()
    child = getattr(signal, "SIGCHLD", None)  # Windows has none
    handler = child and signal.getsignal(child)
    batches: WorkerBatches | None = None
    try:
        with _signals_held_back():
            batches = WorkerBatches(loader)
    except BaseException as error:
        if batches is not None:  # what came is a signal
            batches.end()
            raise
        for frame, _ in traceback.walk_tb(error.__traceback__):
            begun = frame.f_locals.get("self")
            if isinstance(begun, _MultiProcessingDataLoaderIter):
                begun._shutdown = True  # half of its parts are not there
                for worker in getattr(begun, "_workers", []):
                    worker.kill()
        if (sentence := explain_shortage(error)) is None:
            raise
        raise UserError(sentence) from None
    finally:
        if child is not None and threading.current_thread() is threading.main_thread():
            signal.signal(child, signal.SIG_DFL if handler is None else handler)
    # Where something still holds the iterator, a traceback for instance, Python's end sends its
    # workers a SIGTERM, which they do not heed, and waits for them: they have to be gone by then.
    for worker in batches._workers:
        Finalize(batches, worker.kill, exitpriority=0)
    if pinning := getattr(batches, "_pin_memory_thread", None):
        pinning._invoke_excepthook = lambda thread: None  # a lost worker is told in a sentence
    return batches


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Signals wait meanwhile, and for good in the processes started.

    One that came between a worker's start and ``prepare_worker`` would end it, and a handler that
    raises would leave some started whom nobody knows. Blocking alone does not do: a thread of
    PyTorch's takes the signal, and Python runs its handler here.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where no group of processes gets them
        yield
        return
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS if is_main}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _allow_open_files() -> None:
    """Let this process and its workers open 4096: each tensor of a batch at hand is a file."""
    with suppress(ImportError, ValueError, OSError):
        import resource  # no system but Unix has it

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def prepare_worker(worker: int) -> None:
    """What a worker does first; its number decides nothing."""
    del worker
    cv2.setNumThreads(0)  # under spawn nothing is inherited
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A thread of multiprocessing's sends the batches. One that it cannot send, for want of shared
    # memory or of files, it drops, and whoever waits for it would do so for ever.
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    # Another hands out the tensors' files, and reports by this hook, with a traceback, a main
    # process that no longer wants them. Errors of samples go another way.
    sys.excepthook = lambda kind, error, trace: _end_worker(error) if shortage(error) else None
    if sys.platform == "linux":
        # The kernel kills this worker with its parent; PyTorch's own look takes 5 seconds. So long
        # a killed rank's forked workers would keep its connections to the other ranks open.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _end_worker(error: BaseException, batch: object = None) -> None:
    """End this process at once; its exit code says what ran out."""
    os._exit(shortage(error) or 1)


def lost_worker(error: Exception, batches: Any) -> UserError | None:
    """What to raise where a worker of PyTorch's iterator died, or None for any other error.

    The error raised where a batch was waited for does not always name the worker; it may also be
    this process that can take no more files.
    """
    workers = getattr(batches, "_workers", [])
    ready = wait([worker.sentinel for worker in workers], timeout=1) if workers else []
    ended = [worker for worker in workers if worker.sentinel in ready]
    if not ended:
        sentence = explain_shortage(error)
        return None if sentence is None else UserError(sentence)
    for worker in ended:
        worker.join(timeout=1)  # its files are closed a moment before it has an exit code
    told = next((_REMEDIES[w.exitcode] for w in ended if w.exitcode in _REMEDIES), _UNKNOWN)
    pids = ", ".join(str(worker.pid) for worker in ended)
    return UserError(f"a data loading process was lost (process {pids} ended): {told}, {_FEWER}")
