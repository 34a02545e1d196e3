"""SIGTERM and SIGINT: noticed at once, obeyed where nothing is half done. Imports no torch."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_at_once_on_signals() -> None:
    """End the process with 128 + signal, wherever it is: while nothing is worth a checkpoint.

    An exception would surface inside an import, as a traceback or as an error of the module. Called
    by a script itself; a host that runs the script keeps its handlers.
    """
    if _is_hosted(sys._getframe(1)):
        return

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
        os._exit(128 + number)

    for number in _SIGNALS:
        signal.signal(number, end)


def ignore_signals() -> None:
    """Let nothing change the exit code of a process that only has to end."""
    for number in _SIGNALS:
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

    def __init__(self, signal_number: int, step: int, folder: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} at step {step}")
        self.exit_code = 128 + signal_number
        self.folder = folder  # the run's


class Interruption:
    """A context that remembers the first SIGTERM or SIGINT; later ones change nothing.

    In a thread, which receives no signals, it remembers none.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    def __enter__(self) -> Interruption:
        is_main = threading.current_thread() is threading.main_thread()
        signals = _SIGNALS if is_main else ()
        self._before = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
