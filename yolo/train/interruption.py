"""SIGTERM and SIGINT: noticed at once, obeyed where nothing is half done. Imports no torch."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_at_once_on_signals() -> None:
    """End the process with 128 + signal, wherever it is: while nothing is worth a checkpoint.

    An exception would surface inside an import, as a traceback or as an error of the module.
    """

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

    Taking the interpreter apart would take seconds more with PyTorch in it.
    """
    ignore_signals()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that nobody reads any more
            stream.flush()
    os._exit(exit_code)


class Interrupted(Exception):
    """Training stopped on a signal, after its checkpoint was written."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


class Interruption:
    """A context that remembers the first SIGTERM or SIGINT; later ones change nothing."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
