"""What a launcher (torchrun, or main.py with several devices) tells a process. Imports no torch."""

from __future__ import annotations

import os
import reprlib
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from yolo.errors import UserError

RENDEZVOUS_FILE, LAUNCHER = "YOLO_RENDEZVOUS_FILE", "YOLO_LAUNCHER"
"""Variables of our own launcher's ranks: the file in which they meet, and its process."""

SECONDS_TO_STOP = {"cpu": 120, "cuda": 30}
"""How long ranks may take to end their step and write a checkpoint before they are killed. A large
batch on a CPU takes more than torchrun's 30 s; on GPUs a rank may wait in NCCL for a lost one."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process among those that train together."""

    rank: int
    world_size: int
    local_rank: int  # among those of this machine
    local_world_size: int


ALONE = Place(rank=0, world_size=1, local_rank=0, local_world_size=1)


def is_rank() -> bool:
    """Whether a launcher (torchrun, ``command.launch``) started this process as one of several."""
    return bool(os.environ.get("RANK")) and os.environ.get("WORLD_SIZE", "") not in ("", "1")


def read_place() -> Place:
    """From the environment; a UserError names the variable that is missing or out of range."""
    if not any(map(os.environ.get, ("RANK", "WORLD_SIZE"))):
        return ALONE
    world_size = _number("WORLD_SIZE", 1, 1_000_000)
    local_world_size = _number("LOCAL_WORLD_SIZE", 1, world_size, default=1)
    of_this_machine = local_world_size if os.environ.get("LOCAL_WORLD_SIZE") else world_size
    place = Place(
        rank=_number("RANK", 0, world_size - 1),
        world_size=world_size,
        local_rank=_number("LOCAL_RANK", 0, of_this_machine - 1, default=0),
        local_world_size=local_world_size,
    )
    if world_size > 1 and RENDEZVOUS_FILE not in os.environ:
        if not os.environ.get("MASTER_ADDR"):
            raise _wrong("MASTER_ADDR", "the name or address of the machine of rank 0")
        _number("MASTER_PORT", 1, 65_535)
    return place


def _number(name: str, least: int, most: int, *, default: int | None = None) -> int:
    text = os.environ.get(name)
    if not text and default is not None:
        return default
    with suppress(ValueError):
        if least <= (number := int(text or "")) <= most:
            return number
    raise _wrong(name, f"an integer from {least} to {most}")


def _wrong(name: str, wanted: str) -> UserError:
    text = os.environ.get(name)
    beside = [f"{n}={v}" for n in ("RANK", "WORLD_SIZE") if n != name and (v := os.environ.get(n))]
    found = f"is {reprlib.repr(text)}" if text else "is not set"
    return UserError(
        f"the environment variable {name} {found}, but beside {' and '.join(beside)} it must be "
        f"{wanted}; torchrun and --gpu 0,1 set it, and for one process alone unset RANK and "
        "WORLD_SIZE"
    )


def end_with_launcher(seconds: int) -> None:
    """Stop this process, as SIGTERM does, once its launcher is gone; after so long, kill it.

    A launcher that is killed cannot pass anything on; its ranks would train on unseen.
    """
    launcher = int(os.environ.get(LAUNCHER, 0))
    if not launcher and "TORCHELASTIC_RUN_ID" in os.environ:
        launcher = os.getppid()  # torchrun's agent
    if launcher:
        threading.Thread(target=_watch, args=(launcher, seconds), daemon=True).start()


def _watch(launcher: int, seconds: int) -> None:
    while os.getppid() == launcher:
        time.sleep(0.5)
    with suppress(OSError):
        os.write(2, b"what started this process has ended; stopping\n")
    if meeting := os.environ.get(RENDEZVOUS_FILE):
        with suppress(OSError):
            Path(meeting).unlink(missing_ok=True)  # as the launcher would have at its end
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def note_run(folder: Path) -> None:
    """Let the processes that torchrun starts in place of these, after a failure, find their run."""
    note = _note()
    if note is not None:
        with suppress(OSError):  # without it they begin anew
            note.write_text(str(folder.absolute()))


def noted_run() -> Path | None:
    """The run that this process was restarted for, or None."""
    note = _note()
    if note is None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    try:
        return Path(note.read_text())
    except OSError:  # they failed before they had a run
        return None


def _note() -> Path | None:
    """A file in torchrun's own folder for all attempts, <folder>/attempt_0/<rank>/error.json."""
    error_file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    return error_file.parents[2] / "run" if error_file.match("attempt_*/*/error.json") else None
