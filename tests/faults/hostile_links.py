"""Links, devices and pipes at names that are written: nothing outside a run is touched by it, and
what a user names is written through.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import unittest
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import export
import validation
from scripts import predict, report
from tests.apps.predict.test_sources import write_video
from tests.faults.fuzz_trials import snapshot
from tests.faults.tiny import check_told, reference, resume, run_to_end
from tests.faults.trial import Property

PROPERTY = "12 Hostile files"

LINKED = (
    *("last.pt.tmp", "best.pt.tmp", "last.pt", "best.pt", "config.yaml", "metrics.jsonl"),
    *("run.lock", "pictures", "pictures/step_000010.jpg"),
)
"""What a run that goes on writes, under names that everybody knows."""


def linked_run_folder(seed: int, folder: Path) -> None:
    """A run's folder with links under names that a run writes, to files outside or to nothing:
    resumed, it goes on or ends with one sentence, and nothing outside is written.
    """
    generator = random.Random(seed)
    run, outside, output = folder / "run", folder / "outside", folder / "run.txt"
    shutil.copytree(reference(folder), run)
    outside.mkdir()
    chosen = {LINKED[seed % len(LINKED)], *generator.sample(LINKED, generator.randrange(3))}
    for number, name in enumerate(sorted(chosen, reverse=True)):  # what is in a folder before it
        place, target = run / name, outside / f"{number}"
        if place.exists():
            place.rename(target)
        elif generator.random() < 0.5:
            target.write_text("a stranger's")
        place.symlink_to(target)
    before = snapshot(outside)
    if run_to_end(lambda: resume(run, "training.steps=10"), output, 0, 1, what=chosen):
        check_told(output, "it is a link")
    assert snapshot(outside) == before, f"{chosen}: something outside was written"


def _commands(folder: Path, checkpoint: Path) -> dict[str, tuple[Callable[..., int], list[Any]]]:
    """Name and suffix of what is written -> the command that does, without its last argument."""
    film = write_video(folder / "film.avi", frames=4)
    predicting = [film, "--checkpoint", checkpoint, "--gpu", "cpu", "--output"]
    scoring = [checkpoint, "--gpu", "cpu"]
    return {
        "predict.json": (predict.main, [*predicting, folder / "out", "--json"]),
        "film.mp4": (predict.main, predicting),
        "scores.json": (validation.main, [*scoring, "--json"]),
        "boxes.json": (validation.main, [*scoring, "--detections"]),
        "curves.png": (validation.main, [*scoring, "--curves"]),
        "page.html": (validation.main, [*scoring, "--analyse"]),
        "report.html": (report.main, [checkpoint.parent, "--output"]),
        "net.onnx": (export.main, [checkpoint, "--format", "onnx", "--output"]),
    }


def output_elsewhere(seed: int, folder: Path) -> None:
    """Each command's file named as a link to a file, to nothing or to a device, or as a device:
    link and device stay, and what they lead to is written.
    """
    checkpoint, place_folder = reference(folder) / "best.pt", folder / "places"
    place_folder.mkdir()
    commands = _commands(folder, checkpoint)
    name = [*commands][seed % len(commands)]
    place, target = place_folder / name, folder / "target"
    kind = ("file", "nothing", "device link", "device")[seed // len(commands) % 4]
    if kind == "device":
        try:
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            place.write_bytes(b"")
        except OSError as error:
            raise unittest.SkipTest(f"a device cannot be made here: {error}") from error
    else:
        place.symlink_to("/dev/null" if kind == "device link" else target)
    if kind == "file":
        target.write_text("old")
    (main, argv), output = commands[name], folder / "run.txt"
    last = place_folder if name == "film.mp4" else place
    work = partial(main, [*map(str, argv), str(last)])
    run_to_end(work, output, 0, what=f"{name}, {kind}", limit_s=100)
    is_kept = stat.S_ISCHR(place.lstat().st_mode) if kind == "device" else place.is_symlink()
    assert is_kept, f"{name}: the {kind} was replaced"
    assert stat.S_ISCHR(Path("/dev/null").lstat().st_mode), "/dev/null was replaced"
    if kind in ("file", "nothing"):
        assert target.stat().st_size > 10, f"{name}, {kind}: nothing was written"
    assert [path.name for path in place_folder.iterdir()] == [name], "something was left"


TRIALS = [
    Property(linked_run_folder, full=40, quick=2),
    Property(output_elsewhere, full=32, quick=2, limit_s=120),
]
