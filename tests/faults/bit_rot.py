"""A damaged checkpoint is noticed by its own checksum, and a run goes on from a whole one."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.faults.fuzz_trials import flip_bits
from tests.faults.tiny import check_same_run, reference, resume
from tests.faults.trial import Property
from yolo.errors import UserError
from yolo.train.checkpoint import load_checkpoint

PROPERTY = "8 Bit rot"


def _check_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        load_checkpoint(path)
    except UserError as error:
        told = str(error)
        assert str(path) in told and "\n" not in told
        assert "damaged" in told or "not a checkpoint" in told or "its end is missing" in told, told
        return
    raise AssertionError("the damage was not noticed")


def flip_a_bit(seed: int, folder: Path) -> None:
    """One random bit of a checkpoint flipped: refused in a sentence."""
    data = (reference(folder) / "last.pt").read_bytes()
    _check_refused(folder / "last.pt", flip_bits(random.Random(seed), data, (1,)))


def cut_off_the_end(seed: int, folder: Path) -> None:
    """A checkpoint cut off at a random offset: refused in a sentence."""
    data = (reference(folder) / "last.pt").read_bytes()
    _check_refused(folder / "last.pt", data[: random.Random(seed).randrange(len(data))])


def resume_from_the_whole_one(seed: int, folder: Path) -> None:
    """--resume with a damaged last.pt names it, goes on from best.pt, and ends to the bit as the
    whole run.
    """
    whole, run = reference(folder), folder / "fp32"
    shutil.copytree(whole, run)
    (run / "done").unlink()
    data = bytearray((whole / "last.pt").read_bytes())
    place = random.Random(seed).randrange(len(data))
    data[place] ^= 0x10
    # last.pt and best.pt may be two names of one file
    (run / "last.pt").unlink()
    (run / "last.pt").write_bytes(data[:place] if seed % 2 else data)
    best = load_checkpoint(whole / "best.pt")["progress"]["step"]
    output = folder / "output.txt"
    assert resume(run) == 0
    told = [line for line in output.read_text().splitlines() if str(run / "last.pt") in line]
    assert told, "the bad file is not named"
    assert any("best.pt" in line for line in told), f"which one it goes on from is not said: {told}"
    assert best <= load_checkpoint(run / "last.pt")["progress"]["step"]
    check_same_run(whole, run)


TRIALS = [
    Property(flip_a_bit, full=1000, quick=10),
    Property(cut_off_the_end, full=200, quick=5),
    Property(resume_from_the_whole_one, full=10, quick=1),
]
