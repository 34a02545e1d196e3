"""One run in a folder at a time."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.faults.tiny import (
    check_goes_on,
    check_same_run,
    check_told,
    fork,
    last_lines,
    reference,
    resume,
    start,
    wait_until_it_trains,
)
from tests.faults.trial import Property, wait_for

PROPERTY = "13 Two runs"


def second_run(seed: int, folder: Path) -> None:
    """A second run in the folder of one at work is refused in a sentence; the first ends to the
    bit, and killed leaves no lock behind.
    """
    generator = random.Random(seed)
    whole, run = reference(folder), folder / "fp32"
    outputs = [folder / f"{name}.txt" for name in ("first", "second", "third")]
    first = fork(lambda: start(run), outputs[0])
    wait_until_it_trains(run)
    time.sleep(generator.uniform(0, 0.2))
    os.kill(first, signal.SIGSTOP)  # it holds the folder for as long as the others take
    second, third = fork(lambda: resume(run), outputs[1]), fork(lambda: start(run), outputs[2])
    codes = [wait_for(second, 20), wait_for(third, 20)]
    assert codes == [1, 1], f"{codes}: {[last_lines(output) for output in outputs[1:]]}"
    check_told(outputs[1], str(run), "another run is at work here")
    check_told(outputs[2], str(run), "exists already")
    if seed % 2:
        os.kill(first, signal.SIGKILL)  # which leaves no lock behind
        wait_for(first, 10)
        if (run / "last.pt").exists():
            check_goes_on(whole, run)
        return
    os.kill(first, signal.SIGCONT)
    assert wait_for(first, 30) == 0, last_lines(outputs[0])
    check_same_run(whole, run)


TRIALS = [
    Property(second_run, full=20, quick=2),
]
