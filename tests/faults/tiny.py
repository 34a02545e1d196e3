"""A training that takes a second, by main.py itself, and what it leaves behind."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import main as training
from tests.faults.trial import wait_for, write_output_to
from yolo.config import REPOSITORY_ROOT, Config, load_config
from yolo.models.detector import Detector
from yolo.train.checkpoint import load_checkpoint
from yolo.train.interruption import end_at_once_on_signals, ignore_signals

QUICKSTART = REPOSITORY_ROOT / "configs" / "quickstart.yaml"
STEPS, BATCH, MICRO_BATCH = 8, 4, 2
EVALUATE_EVERY, VAL_IMAGES, EVALUATION_BATCH = 2, 4, 2
FORWARDS = STEPS * BATCH // MICRO_BATCH + STEPS // EVALUATE_EVERY * VAL_IMAGES // EVALUATION_BATCH
"""How often the network runs in a whole training."""

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


def start(folder: Path, *more: str, shared: Path | None = None, gpu: str = "cpu") -> int:
    """Train from the beginning, in this process; ``folder`` is the run's. Returns the exit code."""
    shared = shared or folder.parent.parent / "shared"
    return training.main(
        [
            *("--config", str(QUICKSTART), "--gpu", gpu, "--name", folder.name),
            *overrides(shared),
            f"logging.directory={folder.parent}",
            *more,
        ]
    )


def resume(folder: Path, *more: str, gpu: str = "cpu") -> int:
    """Go on with a run, in this process."""
    return training.main(["--resume", str(folder), "--gpu", gpu, *more])


def reference(shared: Path, name: str, *more: str) -> Path:
    """The folder of a whole run that nothing stopped, made once for all trials."""
    folder = shared / "references" / name
    if not (folder / "done").exists():
        assert not folder.exists(), f"{folder}: an unfinished reference; remove it"
        folder.parent.mkdir(exist_ok=True)
        output = folder.with_suffix(".txt")
        # in a child: the metric's threads would not survive a fork of this process
        process = fork(lambda: start(folder, *more, shared=shared), output)
        assert wait_for(process, 60) == 0, output.read_text()[-500:]
        (folder / "done").touch()
    return folder


def fork(work: Callable[[], int], output: Path) -> int:
    """Run something as main.py's last lines do, in a child with a process group of its own.

    Returns:
        Its process id.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        write_output_to(output)
        end_at_once_on_signals()
        code = work()
        ignore_signals()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_until(condition: Callable[[], bool], what: str, *, limit_s: float = 30.0) -> None:
    """Ask again and again.

    Raises:
        AssertionError: not so within the limit.
    """
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit_s:.0f} s"
        time.sleep(0.01)


def is_training(folder: Path) -> bool:
    """Whether a run has logged its first step."""
    path = folder / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


def fork_ranks(work: Callable[[], int], folder: Path) -> list[int]:
    """Two processes as torchrun starts them; their output goes to ``rank0.txt`` and ``rank1.txt``.

    Returns:
        Their process ids.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def of_rank(rank: int) -> int:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        return work()

    return [fork(lambda rank=rank: of_rank(rank), folder / f"rank{rank}.txt") for rank in (0, 1)]


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


# What a run leaves


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
        found = list(differences(a, b))
        assert not found, f"{name}: {len(found)} differences, the first at {found[0]}"


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two checkpoints are not the same to the last bit; NaN is the same as NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or _bits(a) != _bits(b):
            yield where
    elif isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            yield f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"
        for key in a.keys() & b.keys():
            yield from differences(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from differences(*pair, f"{where}[{index}]")
    elif repr(a) != repr(b):
        yield f"{where}: {a} != {b}"


def _bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


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
