"""Signals that ask to stop, at any moment: a checkpoint, the exit code, nothing left running."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.faults.kill import seconds_of_a_run
from tests.faults.tiny import (
    check_goes_on,
    check_saved_as_logged,
    check_stopped,
    fork,
    fork_ranks,
    is_training,
    last_lines,
    launch,
    reference,
    start,
    wait_until_all_have_ended,
    wait_until_it_trains,
)
from tests.faults.trial import Property, descendants
from yolo.errors import STOP_SIGNALS
from yolo.train.checkpoint import load_checkpoint

PROPERTY = "5 Signals"
LARGEST_SECONDS = 5.0
SIGNALS = STOP_SIGNALS
OF_TORCHRUN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""It passes no others on unless it is told to."""
SHARED_MEMORY = Path("/dev/shm")


def _shared_memory() -> set[str]:
    return {path.name for path in SHARED_MEMORY.iterdir()}


def _check_shared_memory(before: set[str], family: list[int]) -> None:
    """Nothing of these processes is left; others may be using it at the same time."""
    marks = [f"_{process}_" for process in family]
    mine = {n for n in _shared_memory() - before if any(mark in n for mark in marks)}
    assert not mine, f"left in shared memory: {mine}"


def _send(processes: list[int], number: int, generator: random.Random) -> set[int]:
    """To each of them; half of the time a second one of either kind follows.

    Returns:
        The exit codes that these call for: of two signals that come before Python has a moment for
        its handlers, it sees the smaller number first.
    """
    numbers = [number]
    if generator.random() < 0.5:
        pause = generator.uniform(0, 0.1)
        numbers.append(generator.choice(SIGNALS))
    for place, each in enumerate(numbers):
        if place:
            time.sleep(pause)
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, each)
    return {128 + each for each in numbers}


def stop_main(seed: int, folder: Path) -> None:
    """A signal at a random moment, often a second one: code 128 + signal within 5 s, last.pt
    whole, no process or shared memory left; resumed to the bit.
    """
    generator = random.Random(seed)
    whole, run = reference(folder), folder / "fp32"
    longest, before = seconds_of_a_run(folder), _shared_memory()
    workers, number = seed % 3, generator.choice(SIGNALS)
    process = fork(lambda: start(run, f"data.workers={workers}"), folder / "stopped.txt")
    time.sleep(generator.uniform(0, longest * (1 + workers / 2)))
    family = [process, *descendants(process)]
    # the process alone, or its whole group as a terminal does it
    allowed = _send(family if seed % 2 else [process], number, generator)
    check_stopped([process], [folder / "stopped.txt"], {*allowed, 0}, LARGEST_SECONDS)
    _check_shared_memory(before, family)
    if (run / "last.pt").exists():
        load_checkpoint(run / "last.pt")
        check_goes_on(whole, run)
    else:
        assert not is_training(run), "no checkpoint was written"


def stop_ranks(seed: int, folder: Path) -> None:
    """Two ranks, a signal to both or one: each ends with 128 + signal within 5 s, last.pt is of the
    last logged step.
    """
    generator = random.Random(seed)
    number, both = generator.choice(SIGNALS), seed % 3 != 0
    run = folder / "ranks"
    processes, outputs = fork_ranks(lambda: start(run, "training.steps=2000"), folder)
    wait_until_it_trains(run)
    time.sleep(generator.uniform(0, 1.5))
    allowed = _send(processes if both else [generator.choice(processes)], number, generator)
    check_stopped(processes, outputs, allowed, LARGEST_SECONDS)
    check_saved_as_logged(run, outputs[0])


def stop_launcher(seed: int, folder: Path) -> None:
    """A signal to a real torchrun, or to main.py --gpu cpu,cpu: the same."""
    generator = random.Random(seed)
    number = generator.choice(OF_TORCHRUN if seed % 2 else SIGNALS)
    run = folder / "launched"
    before = _shared_memory()
    launcher = launch(run, torchrun=seed % 2 == 1)
    time.sleep(generator.uniform(0, 2))
    family = [launcher.pid, *descendants(launcher.pid)]
    os.kill(launcher.pid, number)
    began = time.monotonic()
    code = launcher.wait(timeout=60)
    seconds = time.monotonic() - began
    if not seed % 2:
        assert code == 128 + number, f"exit code {code}: {last_lines(folder / 'launched.txt')}"
    assert code != 0
    wait_until_all_have_ended()
    assert seconds <= 2 * LARGEST_SECONDS, f"took {seconds:.1f} s"
    reached = load_checkpoint(run / "last.pt")["progress"]["step"]
    assert reached > 0
    _check_shared_memory(before, family)
    print(f"ended with {code} after {seconds:.1f} s, at step {reached}")


TRIALS = [
    Property(stop_main, full=100, quick=2),
    Property(stop_ranks, full=20, quick=1),
    Property(stop_launcher, full=4, quick=0, limit_s=300),
]
