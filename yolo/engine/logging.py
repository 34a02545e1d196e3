"""What a run tells: on the terminal, in TensorBoard, metrics.jsonl and pictures."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from yolo.errors import UserError
from yolo.visualize import contact_sheet, save_image


class RunLog(Protocol):
    """Where the trainer reports to; ranks other than 0 report to ``SilentLog``."""

    def say(self, text: str) -> None:
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

    def say(self, text: str) -> None: ...

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
    """

    def __init__(self, *, folder: Path, steps: int, start_step: int = 0) -> None:
        self._folder, self._steps = folder, steps
        self._path = folder / "metrics.jsonl"
        _forget_after(self._path, start_step)
        self._tensorboard = SummaryWriter(folder, purge_step=start_step + 1 if start_step else None)
        self._bar = None
        if _has_screen():
            self._bar = tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    def say(self, text: str) -> None:
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
            self.say(self._line(step, figures, seconds_left))

    def evaluation(
        self, step: int, figures: Mapping[str, float], pictures: Sequence[np.ndarray]
    ) -> None:
        self._write("validation", step, figures)
        if pictures:
            path = self._folder / "pictures" / f"step_{step:06d}.jpg"
            save_image(path, contact_sheet(pictures, columns=2))
            self.say(f"pictures: {path}")
        for index, picture in enumerate(pictures):
            self._tensorboard.add_image(f"validation/{index}", picture, step, dataformats="HWC")
        self._tensorboard.flush()

    def progress(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._tensorboard.close()

    def _write(self, phase: str, step: int, figures: Mapping[str, float]) -> None:
        record: dict[str, Any] = {"phase": phase, "step": step, **figures}
        for name, value in figures.items():
            record[name] = value if math.isfinite(value) else None  # JSON knows no NaN
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written ({error})") from error
        for name, value in figures.items():
            self._tensorboard.add_scalar(f"{phase}/{name}", value, step)

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


def _forget_after(path: Path, step: int) -> None:
    """Drop the records of steps after ``step``, and a line that a crash left half written."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)
