"""Waits for a batch that does not come: shared memory or files used up, workers that hang."""

from __future__ import annotations

import os
import pty
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from tests.faults.tiny import (
    LONG,
    check_goes_on,
    check_same_run,
    check_saved_as_logged,
    check_stopped,
    check_told,
    check_whole,
    fork,
    fork_ranks,
    is_training,
    last_lines,
    reference,
    resume,
    run_to_end,
    start,
    wait_until,
    wait_until_all_have_ended,
    wait_until_it_trains,
)
from tests.faults.trial import Property, descendants, mount_small, wait_for
from yolo.errors import STOP_SIGNALS
from yolo.train.interruption import ignore_signals

PROPERTY = "16 Waits for data"
LARGEST_SECONDS = 30.0
SECONDS_TO_STOP = 10.0
SHARED_MEMORY = Path("/dev/shm")


def small_shared_memory(seed: int, folder: Path) -> None:
    """A small /dev/shm, from the start or filled in the middle of a training with workers: it ends
    within 30 s, code 1, one sentence with the remedy, checkpoints whole; with room it goes on.
    """
    generator = random.Random(seed)
    whole, run, output = reference(folder), folder / "fp32", folder / "run.txt"
    small = seed % 2 == 0
    mount_small(SHARED_MEMORY, generator.randrange(8, 320) if small else 64 * 1024)
    settings = [f"data.workers={1 + seed % 3}", *(() if small else LONG)]
    process = fork(lambda: start(run, *settings, shared=folder.parent / "shared"), output)
    if not small:
        wait_until_it_trains(run)
        time.sleep(generator.uniform(0, 0.5))
    with nullcontext() if small else _filled(SHARED_MEMORY / "filling"):
        code = wait_for(process, LARGEST_SECONDS)
    assert code in (0, 1), f"exit code {code}: {last_lines(output)}"
    assert small or (code == 1 and (run / "last.pt").exists()), last_lines(output)
    if code:
        check_told(output, "/dev/shm", "--shm-size", "data.workers=0")
    check_whole(run)
    wait_until_all_have_ended()
    if small and (run / "last.pt").exists():
        subprocess.run(["mount", "-o", "remount,size=1g", str(SHARED_MEMORY)], check=True)
        run_to_end(lambda: resume(run), folder / "again.txt", 0)
        check_same_run(whole, run)


@contextmanager
def _filled(path: Path) -> Iterator[None]:
    """A file that takes all room, also what a batch leaves that was taken out meanwhile."""
    ended = threading.Event()

    def fill() -> None:
        with path.open("wb", buffering=0) as file:
            while not ended.wait(0.001):
                with suppress(OSError):
                    while file.write(b"\0" * 4096):
                        pass

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def few_open_files(seed: int, folder: Path) -> None:
    """A small limit of open files: a training with workers ends within 30 s, code 0 or 1, and one
    sentence then; checkpoints whole.
    """
    generator = random.Random(seed)
    reference(folder)
    run, output = folder / "fp32", folder / "run.txt"
    most = generator.randrange(12, 90)

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return start(run, f"data.workers={1 + seed % 3}", shared=folder.parent / "shared")

    if run_to_end(limited, output, 0, 1, what=f"{most} files", limit_s=LARGEST_SECONDS):
        check_told(output)
    check_whole(run)
    wait_until_all_have_ended()


def _stop_workers(processes: list[int]) -> None:
    """As a disk that does not answer any more does."""
    for process in processes:
        for worker in descendants(process):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGSTOP)


def _check_stop(processes: list[int], outputs: list[Path], number: int, run: Path) -> None:
    """Each ends in time with the signal's code; last.pt is of the last logged step."""
    for process in processes:
        os.kill(process, number)
    check_stopped(processes, outputs, {128 + number}, SECONDS_TO_STOP)
    check_saved_as_logged(run, outputs[0])


def stalled_loader(seed: int, folder: Path) -> None:
    """Workers stopped in a training or its evaluation, then a signal: its code within 10 s, last.pt
    of the last step, nothing left running.
    """
    generator = random.Random(seed)
    run, output = folder / "stalled", folder / "main.txt"
    evaluating = [] if seed % 2 else ["evaluation.every=1", "data.val.images=4"]
    settings = [*LONG, *evaluating, f"data.workers={1 + seed % 3}"]
    process = fork(lambda: start(run, *settings), output)
    wait_until_it_trains(run)
    time.sleep(generator.uniform(0, 0.5))
    _stop_workers([process])
    time.sleep(generator.uniform(0, 1.5))
    _check_stop([process], [output], generator.choice(STOP_SIGNALS), run)


def stalled_ranks(seed: int, folder: Path) -> None:
    """The same on two ranks, with one's workers stopped or both's."""
    generator = random.Random(seed)
    run = folder / "ranks"
    settings = [*LONG, "data.workers=1"]
    processes, outputs = fork_ranks(lambda: start(run, *settings), folder)
    wait_until_it_trains(run)
    time.sleep(generator.uniform(0, 0.5))
    stalled = [processes[:1], processes[1:], processes][seed % 3]
    _stop_workers(stalled)
    time.sleep(generator.uniform(0, 1.5))
    _check_stop(processes, outputs, generator.choice(STOP_SIGNALS), run)


def lost_terminal(seed: int, folder: Path) -> None:
    """The terminal goes away under a training: code 129 and last.pt, resumed to the bit; where
    SIGHUP is ignored, as by nohup, it goes on to its end.
    """
    generator = random.Random(seed)
    whole, run = reference(folder), folder / "fp32"
    nohup = seed % 3 == 0
    process, terminal = pty.fork()
    if process == 0:
        code = 70
        try:
            signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
            sys.stdout, sys.stderr = (os.fdopen(fd, "w", 1, closefd=False) for fd in (1, 2))
            code = start(run, f"data.workers={seed % 2}")
            ignore_signals()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.set_blocking(terminal, False)

    def trains() -> bool:
        with suppress(BlockingIOError):  # a full terminal would hold it up
            print(os.read(terminal, 2**16).decode(), flush=True)
        return is_training(run)

    wait_until(trains, "it trains")
    time.sleep(generator.uniform(0, 0.3))
    os.close(terminal)
    code = wait_for(process, LARGEST_SECONDS)
    assert code in ((0,) if nohup else (129, 0)), f"exit code {code}"
    wait_until_all_have_ended()
    check_goes_on(whole, run)


TRIALS = [
    Property(small_shared_memory, full=10, quick=1),
    Property(few_open_files, full=10, quick=1),
    Property(stalled_loader, full=20, quick=2),
    Property(stalled_ranks, full=9, quick=1),
    Property(lost_terminal, full=6, quick=1),
]
