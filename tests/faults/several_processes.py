"""Ranks: what they listen on, what they begin with, and what they outlive."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import main as training
from tests.faults.tiny import (
    FORWARDS,
    LONG,
    at_forward,
    check_same_run,
    check_told,
    check_whole,
    command_of,
    fork,
    fork_ranks,
    last_lines,
    launch,
    records,
    start,
    wait_until,
    wait_until_all_have_ended,
    wait_until_it_trains,
)
from tests.faults.trial import Property, descendants, listening, wait_for
from yolo.train import command
from yolo.train.run_folder import RunLock

PROPERTY = "16 Several processes"
STARTED_BY_ITSELF = 4
"""The seed whose processes import everything themselves, as a user's do; the others are forked."""


_NEW_HOST_NAME = 0x04000000  # CLONE_NEWUTS


class ForkedRank:
    """Stands in for ``subprocess.Popen``."""

    def __init__(self, arguments: Sequence[str], *, env: dict[str, str], **_: object) -> None:
        self.returncode: int | None = None

        def work() -> int:
            os.environ.clear()
            os.environ.update(env)
            return training.main(arguments[3:])  # after python, -u and main.py

        self.pid = fork(work, Path("/proc/self/fd/1"))

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        if self.returncode is None:
            self.returncode = wait_for(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("main.py", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _launch(run: Path, seed: int) -> int:
    """main.py --gpu cpu,cpu, for odd seeds on a machine whose own name does not resolve, where that
    can be had; returns its process once it trains.
    """
    run.parent.mkdir(exist_ok=True)
    if seed == STARTED_BY_ITSELF:
        return launch(run).pid

    def work() -> int:
        if seed % 2 and ctypes.CDLL(None).unshare(_NEW_HOST_NAME) == 0:
            socket.sethostname("a-name-that-does-not-resolve")
        with patch.object(command.subprocess, "Popen", ForkedRank):
            shared = run.parent.parent / "shared"
            return training.main([*command_of(run, shared), *LONG, "--gpu", "cpu,cpu"])

    launcher = fork(work, run.parent / "launched.txt")
    wait_until_it_trains(run)
    return launcher


def nobody_else_is_listened_to(seed: int, folder: Path) -> None:
    """main.py --gpu cpu,cpu accepts connections on 127.0.0.1 alone; what a stranger sends there is
    not run, and the training goes on.
    """
    generator, run = random.Random(seed), folder / "launched"
    launcher = _launch(run, seed)
    sockets = listening([launcher, *descendants(launcher)])
    assert sockets, "the ranks exchange nothing"
    assert all(address.is_loopback for address, _ in sockets), f"open to others: {sockets}"
    canary = folder / "canary"
    pickled = b"cos\nsystem\n(Vtouch " + str(canary).encode() + b"\ntR."
    for address, port in sockets:
        with socket.create_connection((str(address), port), timeout=5) as stranger:
            stranger.sendall(generator.randbytes(generator.choice([0, 8, 64])) + pickled)
    before = len(records(run))
    wait_until(lambda: len(records(run)) > before + 2, "it trains on")
    os.kill(launcher, signal.SIGTERM)
    code = wait_for(launcher, 60)
    assert code == 128 + signal.SIGTERM, f"{code}: {last_lines(folder / 'launched.txt')}"
    assert not canary.exists(), "something was run"
    wait_until_all_have_ended()


def lose_the_launcher(seed: int, folder: Path) -> None:
    """Kill -9 of main.py --gpu cpu,cpu: its ranks end within 30 s and leave no temporary file, the
    run's lock is free and every checkpoint whole.
    """
    run, temporary = folder / "launched", folder / "temporary"
    temporary.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    launcher = _launch(run, seed)
    time.sleep(random.Random(seed).uniform(0, 1))
    os.kill(launcher, signal.SIGKILL)
    wait_until_all_have_ended(limit_s=30)
    RunLock(run).release()
    check_whole(run)
    assert (run / "last.pt").exists()
    assert not (left := [*temporary.iterdir()]), f"left behind: {left}"


_OF_TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
LEFT_OVER: tuple[tuple[dict[str, str], str], ...] = (
    ({"RANK": "7"}, "WORLD_SIZE is not set"),
    ({"WORLD_SIZE": "2"}, "RANK is not set"),
    (_OF_TWO | {"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
    (_OF_TWO | {"MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
    (_OF_TWO | {"RANK": "2"}, "RANK is '2'"),
    (_OF_TWO | {"LOCAL_RANK": "first"}, "LOCAL_RANK is 'first'"),
    (_OF_TWO | {"RANK": "0", "MASTER_PORT": "in use"}, "EADDRINUSE"),
    (_OF_TWO | {"MASTER_PORT": "free"}, ""),
    (_OF_TWO | {"MASTER_ADDR": "no.such.host.invalid"}, ""),
    (_OF_TWO | {"RANK": "0", "MASTER_PORT": "free"}, ""),
)
"""An environment, and what is told of it; nothing where the process waits for others."""


def environment_of_a_launcher(seed: int, folder: Path) -> None:
    """RANK and its like left over, missing, no numbers or out of range, a port in use: exit code 1
    and one sentence; where others are waited for, it says so within 15 s, and heeds a signal.
    """
    environment, told = LEFT_OVER[seed % len(LEFT_OVER)]
    output, run = folder / "main.txt", folder / "logs" / "run"
    with socket.socket() as used, socket.socket() as free:
        for each in (used, free):
            each.bind(("", 0))
        used.listen()
        ports = {"in use": used.getsockname()[1], "free": free.getsockname()[1]}
        free.close()
        named = environment.get("MASTER_PORT", "")
        port = {"MASTER_PORT": str(ports[named])} if named in ports else {}
        with patch.dict(os.environ, environment | port):
            process = fork(lambda: start(run), output)
        if told:
            code = wait_for(process, 10)
            assert code == 1, f"exit code {code}: {last_lines(output)}"
            check_told(output, told)
            return
        output.touch()
        wait_until(lambda: "waits for the others" in output.read_text(), "it says so", limit_s=15)
        os.kill(process, signal.SIGTERM)
        assert wait_for(process, 5) == 128 + signal.SIGTERM, last_lines(output)


def restarted_by_torchrun(seed: int, folder: Path) -> None:
    """A rank killed under torchrun --max-restarts, which starts all anew: they find their run, go
    on from its last.pt, and end as if nothing had happened.
    """
    generator, run, whole = random.Random(seed), folder / "restarted", folder / "whole"
    shared = folder.parent / "shared"
    lost, place = generator.randrange(2), generator.randrange(1, FORWARDS // 2)

    def of_rank() -> int:
        if os.environ["RANK"] != str(lost) or os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
            return start(run, shared=shared)
        with at_forward(place, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            return start(run, shared=shared)

    def attempt(number: int) -> list[int | None]:
        of_torchrun = {
            "TORCHELASTIC_ERROR_FILE": str(folder / f"attempt_{number}" / "0" / "error.json"),
            "TORCHELASTIC_RESTART_COUNT": str(number),
        }
        with patch.dict(os.environ, of_torchrun):
            processes, _ = fork_ranks(of_rank, folder)
        return [wait_for(process, 60) for process in processes]

    codes = attempt(0)
    assert codes[lost] == -signal.SIGKILL, codes
    began = (run / "last.pt").exists()
    codes = attempt(1)
    assert codes == [0, 0], f"{codes}: {last_lines(folder / 'rank0.txt')}"
    processes, _ = fork_ranks(lambda: start(whole, shared=shared), folder)
    assert [wait_for(process, 60) for process in processes] == [0, 0]
    check_same_run(whole, run)
    print(f"killed rank {lost} at forward {place}; there was a checkpoint: {began}")


TRIALS = [
    Property(nobody_else_is_listened_to, full=5, quick=1, limit_s=300),
    Property(lose_the_launcher, full=5, quick=1, limit_s=300),
    Property(environment_of_a_launcher, full=len(LEFT_OVER), quick=2),
    Property(restarted_by_torchrun, full=6, quick=1, limit_s=120),
]
