"""What a run tells: on the terminal, in TensorBoard, metrics.jsonl and pictures."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import image as image_summary
from torch.utils.tensorboard.summary import scalar as scalar_summary
from tqdm import tqdm

from yolo.apps.report.drawing import contact_sheet, save_image
from yolo.errors import UserError
from yolo.train.events import EventFile


class RunLog(Protocol):
    """Where the trainer reports to; ranks other than 0 report to ``SilentLog``."""

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


class SilentLog:
    """Says nothing and writes nothing."""

    def message(self, text: str) -> None: ...

    def training(self, step: int, figures: Mapping[str, float], *, seconds_left: float) -> None: ...

    def evaluation(
        self, step: int, figures: Mapping[str, float], pictures: Sequence[np.ndarray]
    ) -> None: ...

    def progress(self, step: int) -> None: ...

    def close(self) -> None: ...


class FolderLog:
    """Writes a run's folder and speaks to the terminal.

    In a terminal a progress bar; elsewhere (``nohup``, a pipe) one plain line for each report.

    Args:
        folder: the run's folder.
        steps: of the whole training.
        start_step: where it begins; reports of later steps, which a resumed run will make again,
            are removed from ``metrics.jsonl`` and hidden in TensorBoard.
        evaluated_step: of the last evaluation that is not made again, where that was no longer
            saved at ``start_step``; reports of later ones go too.

    Raises:
        UserError: (as every report) a file of the log cannot be written.
    """

    def __init__(
        self, *, folder: Path, steps: int, start_step: int = 0, evaluated_step: int | None = None
    ) -> None:
        self._folder, self._steps = folder, steps
        evaluated_step = start_step if evaluated_step is None else evaluated_step
        self._path = folder / "metrics.jsonl"
        with _telling(self._path):
            kept = _forget(self._path, training=start_step, validation=evaluated_step)
        # an evaluation of the step itself is made again: hide the step, and tell its loss anew
        again = start_step > evaluated_step
        redone_from = start_step + (0 if again else 1) if start_step else None
        with _telling(folder):
            self._events = EventFile(folder, redone_from=redone_from)
        for record in kept if again else ():
            if (record["phase"], record["step"]) == ("training", start_step):
                self._write_events("training", start_step, _figures_of(record))
        self._bar = None
        if _has_screen():
            self._bar = tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    def message(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def training(self, step: int, figures: Mapping[str, float], *, seconds_left: float) -> None:
        self._write("training", step, figures)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{figures['loss']:.3g}", refresh=False)
        else:
            self.message(self._line(step, figures, seconds_left))

    def evaluation(
        self, step: int, figures: Mapping[str, float], pictures: Sequence[np.ndarray]
    ) -> None:
        self._write("validation", step, figures)
        if pictures:
            path = self._folder / "pictures" / f"step_{step:06d}.jpg"
            save_image(path, contact_sheet(pictures, columns=2))
            self.message(f"pictures: {path}")
        with _telling(self._events.path):
            for index, picture in enumerate(pictures):
                summary = image_summary(f"validation/{index}", picture, dataformats="HWC")
                self._events.write(step, summary)

    def progress(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._events.close()

    def _write(self, phase: str, step: int, figures: Mapping[str, float]) -> None:
        record: dict[str, Any] = {"phase": phase, "step": step, **figures}
        for name, value in figures.items():
            record[name] = value if math.isfinite(value) else None  # JSON knows no NaN
        with _telling(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._write_events(phase, step, figures)

    def _write_events(self, phase: str, step: int, figures: Mapping[str, float]) -> None:
        summaries = [scalar_summary(f"{phase}/{name}", value) for name, value in figures.items()]
        values = [value for summary in summaries for value in summary.value]
        with _telling(self._events.path):
            self._events.write(step, Summary(value=values))

    def _line(self, step: int, figures: Mapping[str, float], seconds_left: float) -> str:
        left = timedelta(seconds=round(seconds_left))
        terms = " ".join(f"{name} {value:.3g}" for name, value in _under("loss/", figures))
        right = " ".join(f"{name} {value:.0%}" for name, value in _under("accuracy/", figures))
        return (
            f"step {step}/{self._steps}  loss {figures['loss']:.4g} ({terms})  "
            + (f"right ({right})  " if right else "")
            + f"lr {figures['learning_rate']:.2e}  {figures['images_per_second']:.1f} images/s  "
            f"waiting for data {figures['data_wait_share']:.0%}  {left} left"
        )


def _under(prefix: str, figures: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """The figures of a group by the rest of their name."""
    for name, value in figures.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), value


def _has_screen() -> bool:
    """Whether standard error is a terminal, and one whose width is known: a bar needs it."""
    if not sys.stderr.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except OSError:  # a stand-in for a terminal, as in a notebook, leaves the width to the bar
        return True


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn a failure to write into a ``UserError`` that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room or permit writing, "
            "then go on with --resume"
        ) from error


def _forget(path: Path, *, training: int, validation: int) -> list[dict[str, Any]]:
    """Drop the records after each phase's last step, and a line that a crash left half written.

    Returns:
        Those that stay.
    """
    if not path.exists():
        return []
    last = {"training": training, "validation": validation}
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        record = _record_of(line)
        if record is not None and record["step"] <= last.get(record["phase"], -1):
            kept[record["phase"], record["step"]] = record
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in kept.values()), "utf-8")
    temporary.replace(path)
    return list(kept.values())


def _record_of(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if whole and isinstance(record.get("phase"), str) else None


def _figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """A record's figures; JSON's null was no number."""
    named = {name: value for name, value in record.items() if name not in ("phase", "step")}
    return {name: math.nan if value is None else value for name, value in named.items()}
