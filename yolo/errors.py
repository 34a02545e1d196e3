"""The one exception for users' mistakes, texts for the terminal, and the exit codes of commands."""

from __future__ import annotations

import difflib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable

STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGXCPU")
    if hasattr(signal, name)
)
"""Ask a command to stop: a user, a lost terminal, a batch system's warning, a CPU limit."""

LONGEST_SENTENCE = 1800  # characters; it may quote a whole file without a line's end


class UserError(ValueError):
    """A user's mistake in one sentence: what, where, what is allowed, what to do.

    The commands print it without a traceback and exit with code 1. It stays one short line,
    whatever a file holds that it quotes.
    """

    def __init__(self, sentence: object) -> None:
        super().__init__(one_line(str(sentence)))


def one_line(text: str) -> str:
    """A text for the terminal: control characters escaped, its middle left out if it is too long.

    Line ends would break the line, and escape sequences command the terminal.
    """
    if len(text) > LONGEST_SENTENCE:
        half = LONGEST_SENTENCE // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_any_text() -> None:
    """Let what the terminal's encoding lacks be printed escaped, instead of ending a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not a notebook's own, or none at all
            stream.reconfigure(errors="backslashreplace")


def stop_printing() -> None:
    """Drop what is printed from now on, and what waits to be: nobody reads standard output.

    Errors are dropped too where they went to the same place. Else a later flush, such as that
    before a process is forked or at Python's end, would fail.
    """
    nowhere, place = os.open(os.devnull, os.O_WRONLY), os.fstat(sys.stdout.fileno())
    for stream in (sys.stderr, sys.stdout):
        if os.path.samestat(os.fstat(stream.fileno()), place):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """' (did you mean 'x'?)' where a known name is near, in upper or lower case, else nothing."""
    lower = {name.lower(): name for name in known if isinstance(name, str)}
    near = difflib.get_close_matches(str(word).lower(), lower, n=1)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""


def exit_code(work: Callable[[], int | None], *, when_stopped: str = "") -> int:
    """Runs a command's work, prints the sentence of its failure, and returns its exit code.

    A full disk or a lost permission is no bug either, and is treated like a user's mistake. The
    sentence ``when_stopped`` is printed after Ctrl-C.

    Returns:
        ``work``'s own or 0, 1 after a failure, 130 when stopped, 141 where nobody reads on.
    """
    print_any_text()
    try:
        code = work() or 0
        print(end="", flush=True)
        return code
    except BrokenPipeError:
        stop_printing()  # whoever read the lines, such as `head`, has stopped
        return 141  # 128 + SIGPIPE, which Windows has not
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if when_stopped:
            print(when_stopped, file=sys.stderr)
        return 130
