"""A rank or a loader's worker that is killed: the others end soon, and say so."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.faults.tiny import (
    LONG,
    check_told,
    check_whole,
    fork,
    fork_ranks,
    last_lines,
    launch,
    start,
    wait_until_all_have_ended,
    wait_until_it_trains,
)
from tests.faults.trial import Property, descendants, wait_for

PROPERTY = "6 Lost rank or worker"
LARGEST_SECONDS = 30.0


def lose_a_rank(seed: int, folder: Path) -> None:
    """Kill -9 of one of two ranks: the other ends within 30 s, code 1, one sentence."""
    generator = random.Random(seed)
    run = folder / "ranks"
    processes, outputs = fork_ranks(lambda: start(run, *LONG, f"data.workers={seed % 2}"), folder)
    wait_until_it_trains(run)
    time.sleep(generator.uniform(0, 1))
    lost = generator.randrange(2)
    os.kill(processes[lost], signal.SIGKILL)
    code = wait_for(processes[1 - lost], LARGEST_SECONDS)
    output = outputs[1 - lost]
    assert code == 1, f"exit code {code}: {last_lines(output)}"
    check_told(output, "lost the others")
    wait_for(processes[lost], 1)
    check_whole(run)
    wait_until_all_have_ended()


def lose_a_worker(seed: int, folder: Path) -> None:
    """Kill -9 of a loader's worker: main.py ends within 30 s, code 1, one sentence."""
    generator = random.Random(seed)
    run = folder / "workers"
    output = folder / "main.txt"
    process = fork(lambda: start(run, *LONG, f"data.workers={1 + seed % 3}"), output)
    wait_until_it_trains(run)
    time.sleep(generator.uniform(0, 1))
    os.kill(generator.choice(descendants(process)), signal.SIGKILL)
    code = wait_for(process, LARGEST_SECONDS)
    assert code == 1, f"exit code {code}: {last_lines(output)}"
    check_told(output, "data loading process")
    check_whole(run)
    wait_until_all_have_ended()


def lose_a_launched_rank(seed: int, folder: Path) -> None:
    """Kill -9 of a rank of main.py --gpu cpu,cpu: it ends within 30 s and names the rank."""
    generator = random.Random(seed)
    run = folder / "launched"
    launcher = launch(run)
    time.sleep(generator.uniform(0, 1))
    ranks = {_rank(process): process for process in descendants(launcher.pid)}
    lost = generator.choice(sorted(rank for rank in ranks if rank is not None))
    os.kill(ranks[lost], signal.SIGKILL)
    code = launcher.wait(timeout=LARGEST_SECONDS)
    told = (folder / "launched.txt").read_text()
    assert code != 0
    assert f"rank {lost}" in told, f"rank {lost} is not named: {told[-500:]}"
    check_whole(run)
    wait_until_all_have_ended()


def _rank(process: int) -> str | None:
    """What the launcher put into a process's environment."""
    try:
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((v[5:].decode() for v in variables if v.startswith(b"RANK=")), None)


TRIALS = [
    Property(lose_a_rank, full=20, quick=1),
    Property(lose_a_worker, full=20, quick=1),
    Property(lose_a_launched_rank, full=2, quick=0, limit_s=300),
]
