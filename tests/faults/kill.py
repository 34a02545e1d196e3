"""Nothing is lost by kill -9: what was saved stays whole, and the run goes on exactly."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from tests.faults.tiny import check_goes_on, check_same_run, fork, reference, resume, start
from tests.faults.trial import Property, wait_for
from tests.train.toys import differences
from yolo import files
from yolo.train import checkpoint
from yolo.train.checkpoint import link_checkpoint, load_checkpoint, save_checkpoint

PROPERTY = "4 Kill"


def seconds_of_a_run(folder: Path) -> float:
    """How long the whole tiny training takes on this machine, measured once for all trials."""
    shared = folder.parent / "shared"
    path = shared / "seconds_of_a_run"
    if not path.exists():
        began = time.monotonic()
        run = shared / "timed"
        shutil.rmtree(run, ignore_errors=True)
        process = fork(lambda: start(run, shared=shared), shared / "timed.txt")
        assert wait_for(process, 60) == 0
        path.write_text(str(time.monotonic() - began))
    return float(path.read_text())


def kill_and_resume(seed: int, folder: Path) -> None:
    """Kill -9 at a random moment: last.pt and the previous best load; resumed, the run is to the
    bit the one that was not killed.
    """
    generator = random.Random(seed)
    whole, run = reference(folder), folder / "fp32"
    longest = seconds_of_a_run(folder)
    killed = _kill(lambda: start(run), longest, generator, folder)
    reached = _check_whole(run, before=0)
    if seed % 4 == 0 and _can_resume(run):
        killed = _kill(lambda: resume(run), longest, generator, folder)
        _check_whole(run, before=reached)
    if _can_resume(run):
        check_goes_on(whole, run)
    else:  # killed before its first checkpoint: nothing was there to lose
        assert killed or not (run / "best.pt").exists()
        shutil.rmtree(run, ignore_errors=True)
        assert start(run) == 0
        check_same_run(whole, run)
    left = [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
    assert not left, f"left behind: {left}"


def _kill(work: Callable[[], int], longest: float, generator: random.Random, folder: Path) -> bool:
    """Start it and kill its process group after a random time; False if it had ended before."""
    process = fork(work, folder / "killed.txt")
    code = wait_for(process, generator.uniform(0, longest))
    if code is None:
        os.killpg(process, signal.SIGKILL)
        wait_for(process, 10)
        return True
    assert code == 0, f"it ended with code {code} before it was killed"
    return False


def _can_resume(run: Path) -> bool:
    return (run / "last.pt").exists()


def _check_whole(run: Path, *, before: int) -> int:
    """Both files load, and no step that was saved is lost. Returns the step of last.pt."""
    if not _can_resume(run):
        assert before == 0, "last.pt is gone"
        assert not (run / "best.pt").exists()
        return 0
    progress = load_checkpoint(run / "last.pt")["progress"]
    assert progress["step"] >= before, f"went back from step {before} to {progress['step']}"
    if progress["best_figure"] is not None and progress["best_step"] < progress["step"]:
        best = load_checkpoint(run / "best.pt")["progress"]
        assert best["step"] == progress["best_step"]
    elif (run / "best.pt").exists():
        load_checkpoint(run / "best.pt")
    return progress["step"]


# The saver, aborted everywhere


def _content(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    weight = torch.rand(20_000, generator=generator)
    return {"model": {"weight": weight}, "progress": {"step": step}}


def abort_saver(seed: int, folder: Path) -> None:
    """The saver ended before each of its lines and within its writes: both files whole, the next
    save works.
    """
    last, best = folder / "last.pt", folder / "best.pt"

    def save() -> None:
        save_checkpoint(last, _content(2))
        link_checkpoint(last, best)

    lines, aborted = 0, True
    while aborted:
        lines += 1
        aborted = _abort(save, partial(_end_at_line, lines), last, best, seed)
    assert lines > 20, f"only {lines} lines of the saver ran"
    size, writes = last.stat().st_size, 25
    for part in range(writes):
        limit = random.Random(f"{seed} {part}").randrange(size)
        assert _abort(save, partial(_end_at_byte, limit), last, best, seed)
    print(f"aborted at {lines - 1} lines and in {writes} writes")


def _abort(
    save: Callable[[], None], arrange: Callable[[], None], last: Path, best: Path, seed: int
) -> bool:
    """Save over an old checkpoint in a child that is ended; both names must be whole after."""
    for path in last.parent.glob("*.pt*"):
        path.unlink()
    save_checkpoint(last, _content(1))
    link_checkpoint(last, best)
    if seed % 2:  # a file that an earlier abort left behind
        shutil.copy(last, last.with_name("last.pt.tmp"))

    def work() -> int:
        arrange()
        save()
        return 0

    code = wait_for(fork(work, last.parent / "aborted.txt"), 20)
    steps = []
    for path in (last, best):
        found = load_checkpoint(path)
        steps.append(found["progress"]["step"])
        assert not differences(found["model"], _content(steps[-1])["model"])
    assert steps[0] >= steps[1], f"best.pt is newer than last.pt: {steps}"
    save()  # and the next one is not hindered
    assert [load_checkpoint(p)["progress"]["step"] for p in (last, best)] == [2, 2]
    return code != 0


def _end_at_line(number: int) -> None:
    """End this process, as a kill would, before the n-th line that runs of the saver's files."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in (checkpoint.__file__, files.__file__):
            return None
        if event == "line":
            seen += 1
            if seen == number:
                os._exit(9)
        return trace

    sys.settrace(trace)


def _end_at_byte(number: int) -> None:
    """Let the kernel end this process in the write that crosses a size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


TRIALS = [
    Property(kill_and_resume, full=300, quick=2),
    Property(abort_saver, full=2, quick=1),
]
