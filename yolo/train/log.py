"""What a run reports: to the terminal, TensorBoard, metrics.jsonl and pictures."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image as image_summary
from tqdm import tqdm

from yolo.errors import UserError, stop_printing
from yolo.files import atomic_write, check_no_link, open_no_link

_EVENTS = "events.out.tfevents."


class RunLog:
    """Where the trainer reports to; this one, of all ranks but 0, writes nothing."""

    def message(self, text: str) -> None:
        """Print lines for a person."""

    def training(self, step: int, figures: Mapping[str, float], *, seconds_left: float) -> None:
        """Figures of the steps since the last report."""

    def evaluation(
        self, step: int, figures: Mapping[str, float], pictures: Sequence[np.ndarray]
    ) -> None:
        """Figures and pictures of one evaluation."""

    def progress(self, step: int) -> None:
        """Move the progress bar, where there is one."""

    def close(self) -> None:
        """Finish every file."""


class FolderLog(RunLog):
    """Writes a run's folder and prints to the terminal.

    In a terminal a progress bar; elsewhere (``nohup``, a pipe) one plain line for each report, with
    at most 120 columns. A file that cannot be written is a ``UserError`` in every method.

    Args:
        start_step: where the training begins; reports of later steps, which a resumed run will
            make again, are removed from ``metrics.jsonl`` and hidden in TensorBoard.
        evaluated_step: of the last evaluation that is not made again, where that was no longer
            saved at ``start_step``; reports of later ones go too.
        save_pictures: writes the pictures of an evaluation to one file; None writes none.
    """

    def __init__(
        self,
        *,
        folder: Path,
        steps: int,
        start_step: int = 0,
        evaluated_step: int | None = None,
        save_pictures: Callable[[Path, Sequence[np.ndarray]], None] | None = None,
    ) -> None:
        self._folder, self._steps, self._save_pictures = folder, steps, save_pictures
        evaluated_step = start_step if evaluated_step is None else evaluated_step
        self._path = folder / "metrics.jsonl"
        with _explain_unwritable(self._path):
            check_no_link(self._path)
            kept = _forget(self._path, training=start_step, validation=evaluated_step)
        # an evaluation of the step itself is made again: hide the step, and write its loss anew
        again = start_step > evaluated_step
        redone_from = start_step + (0 if again else 1) if start_step else None
        with _explain_unwritable(folder):
            self._events = EventFile(folder, redone_from=redone_from)
        for record in kept if again else ():
            if (record.pop("phase"), record.pop("step")) == ("training", start_step):
                figures = {n: math.nan if v is None else v for n, v in record.items()}
                self._write_events("training", start_step, figures)
        self._bar = None
        if _has_screen():
            self._bar = tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    def message(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        try:
            print(text, flush=True)
        except OSError as error:
            if error.errno != errno.EIO:
                raise  # a full disk
            stop_printing()  # a terminal that is gone, as after nohup; else a signal ends the run
        if self._bar is not None:
            self._bar.refresh()

    def training(self, step: int, figures: Mapping[str, float], *, seconds_left: float) -> None:
        self._write("training", step, figures)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{figures['loss']:.3g}", refresh=False)
            return
        terms = " ".join(f"{n[5:]} {v:.3g}" for n, v in figures.items() if n.startswith("loss/"))
        line = f"step {step}/{self._steps}  loss {figures['loss']:.3g} ({terms})  "
        line += f"lr {figures['learning_rate']:.1e}  {figures['images_per_second']:.4g} images/s  "
        line += f"{tqdm.format_interval(seconds_left)} left"
        self.message(line.replace("e-0", "e-"))

    def evaluation(
        self, step: int, figures: Mapping[str, float], pictures: Sequence[np.ndarray]
    ) -> None:
        self._write("validation", step, figures)
        if pictures and self._save_pictures is not None:
            path = self._folder / "pictures" / f"step_{step:06d}.jpg"
            for place in (path.parent, path):
                with _explain_unwritable(place):
                    check_no_link(place)
            self._save_pictures(path, pictures)
            if step == self._steps:
                self.message(f"pictures: {path}")
        with _explain_unwritable(self._events.path):
            for index, picture in enumerate(pictures):
                self._events.write_picture(step, f"validation/{index}", picture)

    def progress(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._events.close()

    def _write(self, phase: str, step: int, figures: Mapping[str, float]) -> None:
        finite = {n: v if math.isfinite(v) else None for n, v in figures.items()}  # as JSON has it
        record = {"phase": phase, "step": step, **finite}
        with (
            _explain_unwritable(self._path),
            os.fdopen(open_no_link(self._path, os.O_WRONLY | os.O_APPEND), "a") as file,
        ):
            file.write(json.dumps(record) + "\n")
        self._write_events(phase, step, figures)

    def _write_events(self, phase: str, step: int, figures: Mapping[str, float]) -> None:
        with _explain_unwritable(self._events.path):
            self._events.write_scalars(step, {f"{phase}/{n}": v for n, v in figures.items()})


class EventFile:
    """One more of TensorBoard's event files in a run's folder.

    PyTorch's ``SummaryWriter`` hands every event to a thread, which a full disk kills unnoticed;
    here an event is in the file when a method returns, or an ``OSError`` is raised. Readers forget
    what older files hold of step ``redone_from`` and those after it.
    """

    def __init__(self, folder: Path, *, redone_from: int | None = None) -> None:
        names = [path.name.removeprefix(_EVENTS) for path in folder.glob(f"{_EVENTS}*")]
        older = [int(name.partition(".")[0]) for name in names if name[:10].isdecimal()]
        number = max([int(time.time()), *(number + 1 for number in older)])  # readers go by it
        self.path = folder / f"{_EVENTS}{number:010d}.{socket.gethostname()}"
        self._file = self.path.open("xb", buffering=0)
        self._append(Event(file_version="brain.Event:2"))
        if redone_from is not None:
            start = SessionLog(status=SessionLog.START)
            self._append(Event(step=redone_from, session_log=start))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._append(Event(step=step, summary=Summary(value=values)))

    def write_picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """A picture is uint8 (H, W, 3), RGB."""
        self._append(Event(step=step, summary=image_summary(name, picture, dataformats="HWC")))

    def close(self) -> None:
        self._file.close()

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        rest = memoryview(record.getvalue())
        while rest:  # a disk that fills up takes a part first and refuses the next
            rest = rest[self._file.write(rest) :]


def _has_screen() -> bool:
    """Whether standard error is a terminal, and one whose width is known: a bar needs it."""
    if not sys.stderr.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except OSError:  # a stand-in for a terminal, as in a notebook, leaves the width to the bar
        return True


@contextmanager
def _explain_unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room or permit writing, "
            "then go on with --resume"
        ) from error


def _forget(path: Path, *, training: int, validation: int) -> list[dict[str, Any]]:
    """Drop the records after each phase's last step, and lines that a crash left half written."""
    if not path.exists():
        return []
    last = {"training": training, "validation": validation}
    kept = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
            key = phase, step = record["phase"], record["step"]
            if step <= last.get(phase, -1):
                kept[key] = record
        except (ValueError, TypeError, KeyError):  # not a whole record
            continue
    atomic_write(path, "".join(json.dumps(record) + "\n" for record in kept.values()).encode())
    return list(kept.values())
