"""Signals that ask to stop: noted at once, obeyed where nothing is half done. Imports no torch."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from yolo.errors import STOP_SIGNALS

T = TypeVar("T")


def _signals_to_heed() -> list[signal.Signals]:
    """All but those that nohup has the process ignore, or for which a host has a use of its own."""
    ours = (signal.SIGTERM, signal.SIGINT)
    free = (signal.SIG_DFL, _end)
    return [n for n in STOP_SIGNALS if n in ours or signal.getsignal(n) in free]


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def end_at_once_on_signals() -> None:
    """End the process with 128 + signal, wherever it is: while nothing is worth a checkpoint.

    An exception would surface inside an import, as a traceback or as an error of the module. Called
    by a script itself; a host that runs the script keeps its handlers.
    """
    if _is_hosted(sys._getframe(1)):
        return
    for number in _signals_to_heed():
        signal.signal(number, _end)


def ignore_signals() -> None:
    """Let nothing change the exit code of a process that only has to end."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_process(exit_code: int) -> NoReturn:
    """End the process, its ``atexit`` functions run and its output written.

    Taking the interpreter apart would take seconds more with PyTorch in it. Called by a script
    itself; to a host that runs the script, which still has work to do, it raises ``SystemExit``.
    """
    if _is_hosted(sys._getframe(1)):
        sys.exit(exit_code)
    ignore_signals()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that nobody reads any more
            stream.flush()
    os._exit(exit_code)


def _is_hosted(script: FrameType) -> bool:
    """Whether anything runs a script but Python itself: runpy, a notebook, a profiler, a thread."""
    monitoring = getattr(sys, "monitoring", None)  # of Python 3.12, with six tools at most
    return (
        script.f_back is not None
        or sys.getprofile() is not None
        or sys.gettrace() is not None
        or (monitoring is not None and any(map(monitoring.get_tool, range(6))))
        or bool(sys.flags.interactive or os.environ.get("PYTHONINSPECT"))
    )


class Interrupted(Exception):
    """Training stopped on a signal at a step, after its checkpoint was written."""

    def __init__(self, signal_number: int, step: int, folder: Path, *, alone: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} at step {step}")
        self.exit_code = 128 + signal_number
        self.folder = folder  # the run's
        self.alone = alone  # without the other ranks, which may be waiting for this one


class WaitEnded(BaseException):
    """A signal came where a batch was waited for; no ``Exception``, as a bad image would be."""


class Interruption:
    """A context that remembers the first signal that asks to stop; later ones change nothing.

    In a thread, which receives no signals, it remembers none.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}
        self._patience_s: float | None = None  # of a wait that is going on

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    def __enter__(self) -> Interruption:
        is_main = threading.current_thread() is threading.main_thread()
        signals = _signals_to_heed() if is_main else ()
        self._before = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *error: object) -> None:
        if hasattr(signal, "SIGALRM") and signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heed(self, batches: Iterable[T], *, patience_s: float = 0.0) -> Iterator[T]:
        """The batches, each after a wait that a signal ends: nothing else is cut short by one.

        A wait may be without end: a worker hangs, a network's disk does not answer.

        Args:
            patience_s: how long a batch may take to come after a signal.

        Raises:
            WaitEnded: a signal came, the next batch did not; there will be no further one.
        """
        batches = iter(batches)
        while True:
            try:
                self._patience_s = patience_s
                if self():
                    self._hurry()
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._patience_s = None
            yield batch

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
        self._hurry(frame)

    def _hurry(self, frame: FrameType | None = None) -> None:
        if self._patience_s and hasattr(signal, "setitimer"):
            self._end_wait_in(self._patience_s)
        else:
            self._end_wait(0, frame)

    def _end_wait_in(self, seconds: float) -> None:
        before = signal.signal(signal.SIGALRM, self._end_wait)
        self._before.setdefault(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _end_wait(self, number: int, frame: FrameType | None) -> None:
        if self._patience_s is None:
            return
        if _is_in_finalizer(frame) and hasattr(signal, "setitimer"):
            self._end_wait_in(0.05)
            return
        self._patience_s = None
        raise WaitEnded


def _is_in_finalizer(frame: FrameType | None) -> bool:
    """Whether Python is clearing something away, where an exception is printed and lost."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code is Finalize.__call__.__code__:
            return True
        frame = frame.f_back
    return False
