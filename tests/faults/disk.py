"""A disk that is full or a permission that is lost: loud, and the checkpoint before stays whole."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from scripts import predict
from tests.apps.predict.test_sources import write_video
from tests.faults.fuzz_trials import snapshot
from tests.faults.tiny import (
    FORWARDS,
    at_forward,
    check_goes_on,
    check_same_run,
    check_told,
    check_whole,
    reference,
    resume,
    run_to_end,
    start,
)
from tests.faults.trial import Property, mount_small
from yolo.apps.predict.sources import find_sources

PROPERTY = "7 Disk"

_CAPABILITIES_V3 = 0x20080522
_IGNORE_PERMISSIONS = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root pass over permissions."""


def full_disk(seed: int, folder: Path) -> None:
    """A disk of a random small size: code 1 and one sentence, checkpoints whole; with room again it
    goes on to the bit.
    """
    whole = reference(folder)
    checkpoint = (whole / "last.pt").stat().st_size // 1024
    size = random.Random(seed).randrange(8, int(3.3 * checkpoint))
    disk, output = folder / "disk", folder / "run.txt"
    disk.mkdir()
    mount_small(disk, size)
    run, shared = disk / "fp32", folder.parent / "shared"
    if run_to_end(lambda: start(run, shared=shared), output, 0, 1, what=f"{size} KiB"):
        check_told(output)
    check_whole(run)
    subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
    if (run / "last.pt").exists():
        run_to_end(lambda: resume(run), folder / "again.txt", 0)
        check_same_run(whole, run)


TARGETS = {
    "folder": (".", 0o555),
    "metrics": ("metrics.jsonl", 0o444),
    "pictures": ("pictures", 0o555),
}
"""What may no longer be written, and the mode that says so."""


def lost_permission(seed: int, folder: Path) -> None:
    """Run folder, metrics.jsonl or pictures lose the right to be written while it trains: the
    same.

    In a training that obeys permissions, as any user but root does.
    """
    generator = random.Random(seed)
    whole, run, output = reference(folder), folder / "fp32", folder / "run.txt"
    name, mode = TARGETS[sorted(TARGETS)[seed % len(TARGETS)]]
    target = run / name
    moment = generator.randint(FORWARDS // 4 + 2, FORWARDS - 2)

    def work() -> int:
        _obey_permissions()
        with at_forward(moment, lambda: target.chmod(mode)):
            return start(run)

    run_to_end(work, output, 1, what=f"{name} at forward pass {moment}")
    check_told(output, str(run))
    target.chmod(0o755)
    check_whole(run)
    assert not [path.name for path in run.glob("*.pt.tmp") if name != "."]
    check_goes_on(whole, run)


def never_a_permission(seed: int, folder: Path) -> None:
    """A directory of runs that cannot be written: code 1 and one sentence."""
    logs, output = folder / "logs", folder / "run.txt"
    if seed % 2:
        logs.touch()
    else:
        logs.mkdir(mode=0o555)

    def work() -> int:
        _obey_permissions()
        return start(logs / "run", shared=folder.parent / "shared")

    run_to_end(work, output, 1)
    check_told(output, f"logging.directory: {logs}")
    shutil.rmtree(logs, ignore_errors=True)


FOLDER_ERRORS = ("EINVAL", "ENOSYS", "EOPNOTSUPP", "EBADF", "EACCES", "EIO")


def no_folder_sync(seed: int, folder: Path) -> None:
    """A file system that cannot put a folder on the disk: a run ends there as anywhere; of an
    input/output error code 1 and one sentence.
    """
    name = FOLDER_ERRORS[seed % len(FOLDER_ERRORS)]
    call = "open" if name == "EACCES" else "fsync"
    whole, run, output = reference(folder), folder / "fp32", folder / "run.txt"
    original, code = getattr(os, call), getattr(errno, name)

    def refuse(what: Any, *more: Any, **keywords: Any) -> Any:
        is_folder = stat.S_ISDIR(os.fstat(what).st_mode) if call == "fsync" else what == run
        if is_folder:
            raise OSError(code, os.strerror(code))
        return original(what, *more, **keywords)

    def work() -> int:
        setattr(os, call, refuse)
        return start(run)

    is_loud = run_to_end(work, output, int(name == "EIO"), what=name)
    check_whole(run)
    if is_loud:
        check_told(output, "the checkpoint cannot be written", os.strerror(code))
    else:
        check_same_run(whole, run)


def replaced_folder(seed: int, folder: Path) -> None:
    """The run's folder moved, replaced or emptied while it trains: code 1 and one sentence, nothing
    is written into another; put back, it goes on to the bit.
    """
    kind = ("moved", "replaced", "another run", "emptied")[seed % 4]
    whole, run, aside = reference(folder), folder / "fp32", folder / "aside"
    moment = random.Random(seed).randint(FORWARDS // 4 + 2, FORWARDS - 2)

    def act() -> None:
        run.rename(aside)
        if kind == "another run":
            shutil.copytree(aside, run)
        elif kind != "moved":
            run.mkdir()
        if kind == "emptied":  # the very folder
            for path in aside.iterdir():
                path.rename(run / path.name)
            run.rename(folder / "content")
            aside.rename(run)
        left.update(snapshot(run) if run.exists() else {})

    left: dict[Any, Any] = {}

    def work() -> int:
        with at_forward(moment, act):
            code = start(run)
        assert (snapshot(run) if run.exists() else {}) == left, "something was written"
        return code

    output = folder / "run.txt"
    run_to_end(work, output, 1, what=f"{kind} at forward pass {moment}")
    check_told(output, f"{run}: is no longer the folder of this run")
    shutil.rmtree(run, ignore_errors=True)
    (folder / "content" if kind == "emptied" else aside).rename(run)
    check_goes_on(whole, run)


def video_on_a_full_disk(seed: int, folder: Path) -> None:
    """A video into a disk of a random small size: code 1, one sentence and no file, or all frames
    can be read back.
    """
    checkpoint, output = reference(folder) / "best.pt", folder / "run.txt"
    film, disk = write_video(folder / "film.avi", frames=60), folder / "disk"
    size = random.Random(seed).randrange(4, 160)
    disk.mkdir()
    mount_small(disk, size)
    argv = [film, "--checkpoint", checkpoint, "--gpu", "cpu", "--output", disk]
    predicting = partial(predict.main, list(map(str, argv)))
    if run_to_end(predicting, output, 0, 1, what=f"{size} KiB"):
        check_told(output, "film.mp4: the video cannot be written")
        assert not list(disk.iterdir()), f"{size} KiB: something was left"
        return
    (source,), _ = find_sources([str(disk / "film.mp4")])
    read = [frame for frame in source.read() if frame.image is not None]
    assert len(read) == 60, f"{size} KiB: {len(read)} frames of 60"


def _obey_permissions() -> None:
    """Take from root, in this process, the right to pass over permissions."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    libc = ctypes.CDLL(None)
    assert libc.capget(header, sets) == 0
    sets[0] &= ~_IGNORE_PERMISSIONS
    sets[1] &= ~_IGNORE_PERMISSIONS
    assert libc.capset(header, sets) == 0


TRIALS = [
    Property(full_disk, full=60, quick=2),
    Property(lost_permission, full=30, quick=3),
    Property(never_a_permission, full=4, quick=1),
    Property(no_folder_sync, full=12, quick=2),
    Property(replaced_folder, full=20, quick=1, limit_s=120),
    Property(video_on_a_full_disk, full=20, quick=1),
]
