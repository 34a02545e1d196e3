"""What trials with broken or hostile files check: what is said, used and left untouched."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tests.faults.tiny import QUICKSTART
from yolo.config import Config, load_config
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError

MOST_MEMORY = 1.5
"""Times what the process held before."""


def config_of(section: Mapping[str, Any], batch: int, *more: str) -> Config:
    """The quickstart on a data set of small images, all of which may be bad.

    Args:
        section: of the data set, which is trained on and evaluated on.
        batch: images per step.
        more: overrides.
    """
    settings = [
        f"data.train={json.dumps(section)}",
        f"data.val={json.dumps(section)}",
        "data.image_size=32",
        "data.max_bad_share=1",
        f"training.batch_size={batch}",
        f"training.micro_batch_size={batch}",
        *more,
    ]
    config = load_config(QUICKSTART, settings).config
    assert isinstance(config, Config)
    return config


@contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """What this process and its children write to the terminal, by Python or a library in C."""
    streams = sys.stdout, sys.stderr
    for stream in streams:
        stream.flush()
    file = tempfile.TemporaryFile()  # noqa: SIM115 - read after the end
    kept = [os.dup(number) for number in (1, 2)]
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", buffering=1, errors="backslashreplace") for number in (1, 2)
    )

    def text() -> str:
        file.seek(0)
        return file.read().decode(errors="replace")

    try:
        yield text
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        sys.stdout, sys.stderr = streams
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def flip_bits(generator: random.Random, content: bytes, counts: Sequence[int] = (1, 1, 5)) -> bytes:
    """Some random bits, as many as one of ``counts`` says, are the other way round."""
    changed = bytearray(content)
    for _ in range(generator.choice(counts)):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def blank(generator: random.Random, content: bytes, lengths: Sequence[int] = (1, 8, 64)) -> bytes:
    """Some bytes in a row are 0."""
    start = generator.randrange(len(content))
    end = min(len(content), start + generator.choice(lengths))
    return content[:start] + bytes(end - start) + content[end:]


def error_of(work: Callable[[], object], naming: Path) -> str:
    """The one sentence that it ends with, and nothing on the terminal; "" where it succeeds."""
    error = ""
    with captured() as written:
        try:
            work()
        except UserError as refusal:
            error = str(refusal)
    assert written() == "", f"on the terminal: {written()}"
    if error:
        one_sentence(error, naming=str(naming))
    return error


def is_bad(dataset: DetectionDataset, index: int) -> bool:
    """Whether an image cannot be loaded."""
    try:
        dataset.load(index)
    except UserError:
        return True
    return False


@contextmanager
def bounded(folder: Path, seconds: int = 50) -> Iterator[None]:
    """Nothing changes in the folder; time and memory are bounded."""
    with check_unchanged(folder), within_seconds(seconds), within_memory():
        yield


@contextmanager
def within_seconds(seconds: int) -> Iterator[None]:
    """An alarm, which also ends a wait for a pipe that nobody writes to."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def within_memory() -> Iterator[None]:
    """The peak of this process' memory stays within 1.5 times what it was at the start."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is used now
    start = _peak_kib()
    yield
    peak = _peak_kib()
    assert peak <= MOST_MEMORY * start, f"memory grew from {start >> 10} to {peak >> 10} MiB"


def _peak_kib() -> int:
    (kib,) = re.findall(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)
    return int(kib)


@contextmanager
def check_unchanged(folder: Path) -> Iterator[None]:
    """No file below a folder appears, goes or changes."""
    before = snapshot(folder)
    yield
    changed = sorted({name for name, _ in before.items() ^ snapshot(folder).items()})
    assert not changed, f"changed: {changed}"


def snapshot(folder: Path) -> dict[str, str]:
    """The names below a folder, with kind and content."""
    return {
        str(path.relative_to(folder)): _fingerprint(path)
        for path in folder.rglob("*")
        if path.suffix != ".lock"  # of a run: whoever wants to go on with it takes it first
    }


def _fingerprint(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link to {path.readlink()}"
    if stat.S_ISREG(mode):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return stat.filemode(mode)


def one_sentence(text: str, *, naming: str) -> None:
    """One line of sensible length that names the file."""
    assert text and "\n" not in text and "\r" not in text, f"not one line: {text!r}"
    assert naming in text, f"does not name {naming}: {text}"
    assert len(text) < 2000, f"{len(text)} characters: {text[:300]}"
    assert "Traceback" not in text


def named_once(text: str, bad: Sequence[Path]) -> None:
    """One line for each of the bad images, and no other."""
    lines = text.splitlines()
    counts = Counter(path for path in bad for line in lines if f"{path} " in line)
    assert len(lines) == len(bad) and counts == dict.fromkeys(bad, 1), f"{bad} told as: {text}"


def write_coco_of(
    folder: Path, names: Sequence[str], *, size_wh: tuple[int, int], box_xywh: Sequence[float]
) -> Path:
    """A json in which the images, with their place as id, have one box each."""
    width, height = size_wh
    data = {
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, name in enumerate(names)
        ],
        "annotations": [
            {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [*box_xywh]}
            for number in range(len(names))
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(data))
    return path
