"""A training that takes a second, by main.py itself, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

import main as training
from tests.faults.trial import descendants, wait_for, write_output_to
from tests.train.toys import differences
from yolo.config import REPOSITORY_ROOT, Config, load_config
from yolo.errors import STOP_SIGNALS
from yolo.models.detector import Detector
from yolo.train import interruption
from yolo.train.checkpoint import load_checkpoint

QUICKSTART = REPOSITORY_ROOT / "configs" / "quickstart.yaml"
STEPS, BATCH, MICRO_BATCH = 8, 4, 2
EVALUATE_EVERY, VAL_IMAGES, EVALUATION_BATCH = 2, 4, 2
FORWARDS = STEPS * BATCH // MICRO_BATCH + STEPS // EVALUATE_EVERY * VAL_IMAGES // EVALUATION_BATCH
"""How often the network runs in a whole training."""

LONG = ("training.steps=100000", "evaluation.every=100000")
"""Of a training that something else ends."""

ONLY_MEASURED = ("images_per_second", "data_wait_share")
"""Figures of a report that time decides."""


def overrides(shared: Path) -> list[str]:
    """What makes the quickstart tiny; the drawn images lie in ``shared`` for all trials."""
    return [
        f"data.train.root={shared / 'shapes'}",
        f"data.val.root={shared / 'shapes'}",
        "data.train.images=7",  # batches span epochs
        f"data.val.images={VAL_IMAGES}",
        "data.image_size=64",
        "data.workers=0",
        f"training.steps={STEPS}",
        f"training.batch_size={BATCH}",
        f"training.micro_batch_size={MICRO_BATCH}",
        "training.precision=fp32",
        "training.checkpoint_every=1",
        "training.schedule.warmup_steps=3",
        "training.ema.decay=0.9",
        f"evaluation.every={EVALUATE_EVERY}",
        f"evaluation.batch_size={EVALUATION_BATCH}",
        "evaluation.pictures=1",
        "logging.every=1",
        "model.encoder.width=0.125",
    ]


def tiny_config(shared: Path, *more: str) -> Config:
    """The config itself, for parts of a training."""
    config = load_config(QUICKSTART, [*overrides(shared), *more]).config
    assert isinstance(config, Config)
    return config


def command_of(run: Path, shared: Path) -> list[str]:
    """The arguments of main.py, but for where it runs."""
    own = ["--config", str(QUICKSTART), "--name", run.name]
    return [*own, *overrides(shared), f"logging.directory={run.parent}"]


def start(run: Path, *more: str, shared: Path | None = None) -> int:
    """Train from the beginning, in this process, in the run's folder. Returns the exit code."""
    shared = shared or run.parent.parent / "shared"
    return training.main([*command_of(run, shared), *more, "--gpu", "cpu"])


def resume(run: Path, *more: str) -> int:
    """Go on with a run, in this process."""
    return training.main(["--resume", str(run), "--gpu", "cpu", *more])


def reference(folder: Path, name: str = "fp32", settings: Sequence[str] = ()) -> Path:
    """The folder of a whole run that nothing stopped, made once for all trials."""
    shared = folder.parent / "shared"
    run = shared / "references" / name
    if not (run / "done").exists():
        assert not run.exists(), f"{run}: an unfinished reference; remove it"
        run.parent.mkdir(exist_ok=True)
        output = run.with_suffix(".txt")
        # in a child: the metric's threads would not survive a fork of this process
        process = fork(lambda: start(run, *settings, shared=shared), output)
        assert wait_for(process, 60) == 0, output.read_text()[-500:]
        (run / "done").touch()
    return run


def fork(work: Callable[[], int], output: Path) -> int:
    """Run something as main.py's last lines do, in a child with a process group of its own.

    Returns:
        Its process id.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the child hears them
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        write_output_to(output)
        interruption._is_hosted = lambda script: False  # a child stands for a script
        interruption.end_at_once_on_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        code = work()
        interruption.ignore_signals()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_to_end(
    work: Callable[[], int], output: Path, *codes: int, what: object = "", limit_s: float = 60
) -> int:
    """Fork, and wait for the end, which has one of these exit codes; ``what`` begins a message."""
    code = wait_for(fork(work, output), limit_s)
    assert code in codes, f"{what}: exit code {code}, not {codes}: {last_lines(output)}"
    return code


def wait_until(condition: Callable[[], bool], what: str, *, limit_s: float = 30.0) -> None:
    """Ask again and again.

    Raises:
        AssertionError: not so within the limit.
    """
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit_s:.0f} s"
        time.sleep(0.01)


def wait_until_all_have_ended(limit_s: float = 5.0) -> None:
    """All processes that this one has started."""
    wait_until(lambda: not descendants(os.getpid()), "all processes have ended", limit_s=limit_s)


def is_training(run: Path) -> bool:
    """Whether a run has logged its first step."""
    path = run / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


def wait_until_it_trains(run: Path, limit_s: float = 30.0) -> None:
    """Until the first step is logged."""
    wait_until(lambda: is_training(run), "it trains", limit_s=limit_s)


def launch(run: Path, *, torchrun: bool = False) -> subprocess.Popen[bytes]:
    """A long training on two ranks, under a real torchrun or main.py; returns once it trains.

    What it writes goes to ``launched.txt`` beside the run.
    """
    torchrun_arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    way = [*torchrun_arguments, "main.py", "--gpu", "cpu"]
    if not torchrun:
        way = ["main.py", "--gpu", "cpu,cpu"]
    with (run.parent / "launched.txt").open("w") as output:
        launcher = subprocess.Popen(
            [sys.executable, *way, *command_of(run, run.parent.parent / "shared"), *LONG],
            cwd=REPOSITORY_ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    wait_until_it_trains(run, limit_s=180)
    return launcher


def fork_ranks(work: Callable[[], int], folder: Path) -> tuple[list[int], list[Path]]:
    """Two processes as torchrun starts them.

    Returns:
        Their process ids, and the files that hold what they write.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def of_rank(rank: int) -> int:
        os.environ.update(
            **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
            **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2"),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        return work()

    outputs = [folder / f"rank{rank}.txt" for rank in (0, 1)]
    return [fork(partial(of_rank, rank), output) for rank, output in enumerate(outputs)], outputs


def last_lines(path: Path, count: int = 3) -> str:
    """The end of what a process wrote, for a message."""
    return " / ".join(path.read_text(errors="replace").splitlines()[-count:])


def check_told(path: Path, *words: str) -> None:
    """A process ended with one sentence, not with a traceback, and it holds these words."""
    text = path.read_text(errors="replace")
    assert "Traceback" not in text, f"a traceback: {last_lines(path)}"
    told = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, f"{len(told)} sentences: {told or last_lines(path)}"
    for word in words:
        assert word in told[0], f"{word!r} is not in: {told[0]}"


def check_stopped(
    processes: Sequence[int], outputs: Sequence[Path], codes: set[int], largest_seconds: float
) -> list[int | None]:
    """Each ends in time, with one of the codes and without a traceback, and leaves no process."""
    began = time.monotonic()
    found = [wait_for(process, largest_seconds + 10) for process in processes]
    seconds = time.monotonic() - began
    told = " | ".join(last_lines(output) for output in outputs)
    assert set(found) <= codes, f"exit codes {found}, not {codes}: {told}"
    assert seconds <= largest_seconds, f"took {seconds:.1f} s"
    assert "Traceback" not in "".join(output.read_text() for output in outputs), told
    wait_until_all_have_ended(limit_s=2)
    return found


def check_saved_as_logged(run: Path, output: Path) -> None:
    """last.pt is of the step of the last of the lines "step 3/8 ..."."""
    reached = load_checkpoint(run / "last.pt")["progress"]["step"]
    words = [line.split() for line in output.read_text().splitlines()]
    steps = [int(w[1].split("/")[0]) for w in words if w[:1] == ["step"] and "/" in w[1]]
    assert reached == max(steps), f"last.pt is of step {reached}, the log of {max(steps)}"


# What a run leaves


def check_whole(run: Path) -> None:
    """Every checkpoint loads."""
    for path in run.glob("*.pt"):
        load_checkpoint(path)


def records(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what time decides."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in record.items() if k not in ONLY_MEASURED} for record in found]


def check_same_run(one: Path, other: Path) -> None:
    """To the bit: losses and figures as logged, and all that a checkpoint holds but its config."""
    assert records(one) == records(other), "metrics.jsonl differs"
    for name in ("last.pt", "best.pt"):
        a, b = (load_checkpoint(folder / name) for folder in (one, other))
        a.pop("config"), b.pop("config")  # the folder's name, the number of workers
        found = differences(a, b)
        assert not found, f"{name}: {len(found)} differences, the first at {found[0]}"


def check_goes_on(whole: Path, run: Path) -> None:
    """Resumed, the run ends as the one that went through."""
    assert resume(run) == 0
    check_same_run(whole, run)


@contextmanager
def at_forward(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Do something before the network runs for the ``number``-th time, counted from 1."""
    calls = 0

    def before(module: torch.nn.Module, arguments: Sequence[Any]) -> None:
        nonlocal calls
        if isinstance(module, Detector):
            calls += 1
            if calls == number:
                act()

    handle = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
