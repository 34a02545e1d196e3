"""How a training command ends, whatever ended it; the training itself is a stand-in."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import patch

import pytest
import torch
import torch.distributed.launcher.api as launcher

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


@pytest.mark.parametrize(
    ("devices", "asked", "seconds"),
    [(["cpu", "cpu"], None, "120"), (["cuda:0", "cuda:1"], None, "30"), (["cpu", "cpu"], "7", "7")],
)
def test_the_long_step_of_a_cpu_may_end_before_the_launcher_kills(
    devices: list[str], asked: str | None, seconds: str, monkeypatch
) -> None:
    """It is followed by a checkpoint, which a kill after torch's 30 seconds would lose."""
    variable, seen = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", []
    with patch.dict(os.environ, {"OMP_NUM_THREADS": "1", variable: asked or ""}):
        if asked is None:
            del os.environ[variable]
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(
            command, "run", lambda given: seen.append((given.nproc_per_node, os.environ[variable]))
        )
        assert train(devices) == 0
    assert seen == [("2", seconds)]
    assert variable in Path(launcher.__file__).read_text()
