"""How a training command ends, whatever ended it; the training itself is a stand-in."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from yolo.errors import UserError
from yolo.train import command
from yolo.train.distributed import Ranks
from yolo.train.interruption import Interrupted


def train(devices, build=lambda ranks: pytest.fail("nothing to build")) -> int:
    return command.train(build, devices=devices, argv=[], script=Path("main.py"))


class Exchange(Ranks):
    """Notes how it is ended."""

    ended: ClassVar[list[str]] = []

    def leave(self) -> None:
        self.ended.append("left")

    def break_off(self) -> None:
        self.ended.append("broken off")


@pytest.mark.parametrize(
    ("failure", "code", "ended"),
    [
        (None, 0, "left"),
        (Interrupted(signal.SIGTERM, 7, Path("run")), 128 + signal.SIGTERM, "left"),
        (UserError("the disk is full"), 1, "broken off"),
        (OSError("the disk is full"), 1, "broken off"),
        (RuntimeError("gloo: Connection closed by peer"), 1, "broken off"),
        (KeyboardInterrupt(), 130, "broken off"),
    ],
)
def test_only_what_ends_all_ranks_is_waited_for(failure, code, ended, monkeypatch, capsys) -> None:
    """A rank that fails alone must not wait for the others, who wait for it."""

    def fit() -> None:
        if failure is not None:
            raise failure

    exchange = Exchange(rank=0, world_size=2, device=torch.device("cuda", 0))
    exchange.ended.clear()
    monkeypatch.setattr(command, "join", lambda devices: exchange)
    assert train(None, build=lambda ranks: SimpleNamespace(fit=fit)) == code
    assert exchange.ended[0] == ended
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == (1 if code not in (0, 130) else 0)


@pytest.mark.parametrize("devices", [None, ["cpu"], ["cuda:1"]])
def test_a_stopped_run_says_how_to_go_on(devices, monkeypatch, capsys) -> None:
    def fit() -> None:
        raise Interrupted(signal.SIGINT, 7, Path.cwd() / "logs" / "a run")

    main = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    monkeypatch.setattr(command, "join", lambda devices: main)
    assert train(devices, build=lambda ranks: SimpleNamespace(fit=fit)) == 130
    gpu = "" if devices is None else f" --gpu {devices[0].removeprefix('cuda:')}"
    assert capsys.readouterr().err == (
        "stopped by SIGINT at step 7; go on with: python main.py --resume 'logs/a run'" + gpu + "\n"
    )


def test_gpus_that_are_not_there_are_named_once(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(command, "launch", lambda *_, **__: pytest.fail("nothing to launch"))
    assert train(["cuda:0", "cuda:1"]) == 1
    assert capsys.readouterr().err == (
        "error: --gpu 1: this machine has 1 GPU(s), numbered from 0; name one of them, or --gpu "
        "cpu\n"
    )


RANK = """
import os, signal, sys, time
from pathlib import Path
rank, folder = os.environ["RANK"], Path(sys.argv[1])

def ready():
    (folder / f"ready {rank}").touch()
    while len([*folder.glob("ready *")]) < 2:
        time.sleep(0.01)

"""


def launch(tmp_path: Path, text: str) -> int:
    """Two ranks that run a text, through the launcher."""
    (script := tmp_path / "rank.py").write_text(RANK + text)
    return command.launch(script, [str(tmp_path)], ["cpu", "cpu"])


HEEDS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); ready(); time.sleep(60)"
FAILS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit({})); ready(); time.sleep(60)"


ENDS = f"if rank == '1': ready(); sys.exit(7)\n{HEEDS}"
IS_KILLED = f"if rank == '0': ready(); os.kill(os.getpid(), signal.SIGKILL)\n{HEEDS}"
IS_DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(60)"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("", 0, ""),
        (ENDS, 7, "rank 1 ended with exit code 7"),
        (IS_KILLED, 137, "rank 0 ended with signal 9"),
    ],
)
def test_one_rank_that_fails_ends_all_and_is_named(text, code, told, tmp_path, capfd) -> None:
    before = time.monotonic()
    assert launch(tmp_path, text) == code
    assert capfd.readouterr().err == (f"error: {told}\n" if told else "")
    assert time.monotonic() - before < 20


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        (HEEDS, 143, ""),
        (FAILS.format("0 if rank == '0' else 143"), 0, ""),  # done just then
        (FAILS.format("1 if rank == '0' else 143"), 1, "rank 0 ended with exit code 1"),  # no disk
        (IS_DEAF, 137, "rank 0 ended with signal 9"),
    ],
)
def test_a_signal_is_passed_on(text, code, told, tmp_path, monkeypatch, capfd) -> None:
    """And the rank that writes the checkpoint tells how that went."""
    monkeypatch.setitem(command.SECONDS_TO_STOP, "cpu", 0.5 if code == 137 else 20)

    def stop_when_ready() -> None:
        while len([*tmp_path.glob("ready *")]) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_ready, daemon=True).start()
    handler = signal.getsignal(signal.SIGTERM)
    assert launch(tmp_path, text) == code
    assert signal.getsignal(signal.SIGTERM) is handler
    assert capfd.readouterr().err == (f"error: {told}\n" if told else "")


def test_what_is_left_over_of_one_process_keeps_no_ranks_from_being_launched(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(command, "launch", lambda script, argv, devices: len(devices))
    assert train(["cpu", "cpu"]) == 2


def test_ranks_meet_in_a_file_of_their_own(tmp_path, monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS"):  # left over
        monkeypatch.setenv(name, "7")
    text = """
names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"]
meeting = Path(os.environ["YOLO_RENDEZVOUS_FILE"])
parent = os.environ["YOLO_LAUNCHER"] == str(os.getppid())
values = [os.environ[name] for name in names] + [oct(meeting.stat().st_mode)[-3:], parent]
(folder / f"seen {rank}").write_text(f"{values} {meeting}")
"""
    assert launch(tmp_path, text) == 0
    for rank in ("0", "1"):
        values, _, meeting = (tmp_path / f"seen {rank}").read_text().rpartition(" ")
        assert values == str([rank, rank, "2", "2", "7", "600", True])
        assert not Path(meeting).exists()
