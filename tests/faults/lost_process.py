"""A rank or a loader's worker that is killed: the others end soon, and say so."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.tiny import (
    QUICKSTART,
    check_told,
    fork,
    fork_ranks,
    is_training,
    last_lines,
    overrides,
    start,
    wait_until,
)
from tests.faults.trial import descendants, wait_for
from yolo.config import REPOSITORY_ROOT
from yolo.train.checkpoint import load_checkpoint

PROPERTY = "6 Lost rank or worker"
LARGEST_SECONDS = 30.0
LONG = ("training.steps=100000", "evaluation.every=100000")


def _check_run(run: Path) -> None:
    if (run / "last.pt").exists():
        load_checkpoint(run / "last.pt")
    wait_until(lambda: not descendants(os.getpid()), "all processes have ended", limit_s=5)


def lose_a_rank(seed: int, folder: Path) -> None:
    generator = random.Random(seed)
    run = folder / "ranks"
    processes = fork_ranks(lambda: start(run, *LONG, f"data.workers={seed % 2}"), folder)
    wait_until(lambda: is_training(run), "the ranks train")
    time.sleep(generator.uniform(0, 1))
    lost = generator.randrange(2)
    os.kill(processes[lost], signal.SIGKILL)
    code = wait_for(processes[1 - lost], LARGEST_SECONDS)
    output = folder / f"rank{1 - lost}.txt"
    assert code == 1, f"exit code {code}: {last_lines(output)}"
    check_told(output, "lost the others")
    wait_for(processes[lost], 1)
    _check_run(run)


def lose_a_worker(seed: int, folder: Path) -> None:
    generator = random.Random(seed)
    run = folder / "workers"
    output = folder / "main.txt"
    process = fork(lambda: start(run, *LONG, f"data.workers={1 + seed % 3}"), output)
    wait_until(lambda: is_training(run), "it trains")
    time.sleep(generator.uniform(0, 1))
    os.kill(generator.choice(descendants(process)), signal.SIGKILL)
    code = wait_for(process, LARGEST_SECONDS)
    assert code == 1, f"exit code {code}: {last_lines(output)}"
    check_told(output, "data loading process")
    _check_run(run)


def lose_a_launched_rank(seed: int, folder: Path) -> None:
    """Under main.py --gpu cpu,cpu, which names the rank."""
    generator = random.Random(seed)
    run = folder / "launched"
    settings = [*overrides(folder.parent / "shared"), *LONG, f"logging.directory={folder}"]
    command = ["main.py", "--config", str(QUICKSTART), "--gpu", "cpu,cpu", "--name", run.name]
    with (folder / "launched.txt").open("w") as output:
        launcher = subprocess.Popen(
            [sys.executable, *command, *settings],
            cwd=REPOSITORY_ROOT,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    wait_until(lambda: is_training(run), "the ranks train", limit_s=180)
    time.sleep(generator.uniform(0, 1))
    ranks = {_rank(process): process for process in descendants(launcher.pid)}
    lost = generator.choice(sorted(rank for rank in ranks if rank is not None))
    os.kill(ranks[lost], signal.SIGKILL)
    code = launcher.wait(timeout=LARGEST_SECONDS)
    told = (folder / "launched.txt").read_text()
    assert code != 0
    assert f"rank {lost}" in told, f"rank {lost} is not named: {told[-500:]}"
    _check_run(run)


def _rank(process: int) -> str | None:
    """What the launcher put into a process's environment."""
    try:
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((v[5:].decode() for v in variables if v.startswith(b"RANK=")), None)


TRIALS = {
    "lose_a_rank": lose_a_rank,
    "lose_a_worker": lose_a_worker,
    "lose_a_launched_rank": lose_a_launched_rank,
}
CHECKED = {
    "lose_a_rank": "kill -9 of one of two ranks: the other ends within 30 s, code 1, one sentence",
    "lose_a_worker": "kill -9 of a loader's worker: main.py ends within 30 s, code 1, one sentence",
    "lose_a_launched_rank": "kill -9 of a rank of main.py --gpu cpu,cpu: it ends within 30 s and "
    "names the rank",
}
FULL = {"lose_a_rank": 20, "lose_a_worker": 20, "lose_a_launched_rank": 2}
QUICK = {"lose_a_rank": 1, "lose_a_worker": 1, "lose_a_launched_rank": 0}
LIMIT_S = {"lose_a_launched_rank": 300.0}
