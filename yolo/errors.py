"""The one exception for what a user can mend, and what a command makes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(ValueError):
    """A user's mistake, told in one sentence: what, where, what is allowed, what to do.

    The commands print the sentence without a traceback and exit with code 1.
    """


def exit_code(work: Callable[[], int | None], *, when_stopped: str = "") -> int:
    """Do what a command is for and say how it ended.

    A full disk or a lost permission is no bug either, and is told like a user's mistake.

    Args:
        work: returns the exit code, or None for 0.
        when_stopped: a sentence for whoever presses Ctrl-C.

    Returns:
        ``work``'s own, 1 for a failure that one sentence explains, 130 when stopped.
    """
    try:
        return work() or 0
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if when_stopped:
            print(when_stopped, file=sys.stderr)
        return 130
