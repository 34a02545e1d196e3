"""What a launcher's variables say, and a process that outlives its launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from yolo.config import REPOSITORY_ROOT
from yolo.errors import UserError
from yolo.train.launched import ALONE, Place, note_run, noted_run, read_place

OF_TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
OF_OURS = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "YOLO_RENDEZVOUS_FILE": "/x"}


def set_only(environment: dict[str, str], monkeypatch) -> None:
    for name in (*OF_TWO, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def place(rank: int, world_size: int, local_rank: int, local_size: int) -> Place:
    of_machine = {"local_rank": local_rank, "local_world_size": local_size}
    return Place(rank=rank, world_size=world_size, **of_machine)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALONE),
        ({"RANK": "", "WORLD_SIZE": ""}, ALONE),
        ({"LOCAL_RANK": "5", "MASTER_PORT": "x"}, ALONE),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ALONE),
        (OF_TWO, place(1, 2, 0, 1)),
        (OF_TWO | {"LOCAL_RANK": "1"}, place(1, 2, 1, 1)),
        (OF_OURS, place(0, 2, 0, 2)),
    ],
)
def test_a_place_among_the_ranks(environment, expected, monkeypatch) -> None:
    set_only(environment, monkeypatch)
    assert read_place() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is not set, but beside RANK=1 it must be an integer from"),
        ({"RANK": ""}, "RANK is not set, but beside WORLD_SIZE=2 it must be .* from 0 to 1;"),
        ({"RANK": "2"}, "RANK is '2', but beside WORLD_SIZE=2 it must be .* from 0 to 1; torchrun"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({"RANK": "1.0"}, "RANK is '1.0'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK is 'first', but beside RANK=1 and WORLD_SIZE=2 it"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK is '2'"),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK is '1', .* from 0 to 0"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE is '3'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set, .* must be the name or address of the"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT is '65536', .* from 1 to 65535"),
    ],
)
def test_a_wrong_variable_is_named(changes, message, monkeypatch) -> None:
    set_only(OF_TWO | changes, monkeypatch)
    with pytest.raises(UserError, match=f"^the environment variable {message}") as caught:
        read_place()
    assert str(caught.value).endswith("for one process alone unset RANK and WORLD_SIZE")


def test_restarted_processes_find_their_run(tmp_path, monkeypatch) -> None:
    def attempt(number: int) -> Path | None:
        folder = tmp_path / "id_x" / f"attempt_{number}" / "0"
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "error.json"))
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(number))
        return noted_run()

    assert attempt(0) is None and attempt(1) is None
    note_run(tmp_path / "logs" / "run")
    assert attempt(2) == tmp_path / "logs" / "run"
    assert attempt(0) is None
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/error.json")  # of another launcher
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    note_run(tmp_path)
    assert noted_run() is None
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    note_run(tmp_path)
    assert noted_run() is None


WATCHING = """
import os, signal, sys, time
from yolo.train.launched import end_with_launcher
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ.update(YOLO_LAUNCHER=str(os.getppid()))
end_with_launcher(1)
print(os.getpid(), flush=True)
time.sleep(60)
"""
LAUNCHING = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@pytest.mark.parametrize("kind", ["heeds", "deaf"])
def test_a_rank_ends_with_its_launcher(kind) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHING, WATCHING, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY_ROOT,
    )
    assert launcher.stdout is not None and launcher.stderr is not None
    rank = int(launcher.stdout.readline())
    os.kill(rank, 0)
    launcher.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    told = launcher.stderr.read()  # till its end
    assert told == "what started this process has ended; stopping\n"
    launcher.wait()
    assert time.monotonic() < end
