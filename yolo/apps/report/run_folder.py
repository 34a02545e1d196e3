"""What a run's folder tells, whether the run is done, going on or broken off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from yolo.config import ConfigError
from yolo.config.read import read_yaml
from yolo.errors import UserError

METRICS, CONFIG, PICTURES = "metrics.jsonl", "config.yaml", "pictures"

DEFAULT = "default"
"""The origin of what no file and no command line says."""

_ORIGIN_MARK = "  # "


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the config.

    Attributes:
        key: dotted; the same for each item of a list.
        line: as it stands in the file, without its comment.
        origin: the file that says so, "default" or "command line"; of a heading "".
    """

    key: str
    line: str
    origin: str


@dataclass(frozen=True, kw_only=True)
class Records:
    """The reports of one phase, in the order of their steps.

    Attributes:
        steps: int (R,).
        figures: name -> float (R,), NaN where a report lacks it.
    """

    steps: np.ndarray
    figures: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.steps)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The figures of a group by the rest of their name."""
        start = f"{prefix}/"
        return {n.removeprefix(start): v for n, v in self.figures.items() if n.startswith(start)}


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run as its files tell it.

    Attributes:
        path: the folder.
        training, validation: the reports.
        settings: the lines of the config, none if it cannot be read.
        config: the same as plain data.
        base: the YAML that the run was started with, "" if unknown.
        last_report: when ``metrics.jsonl`` was last written.
    """

    path: Path
    training: Records
    validation: Records
    settings: Sequence[Setting]
    config: Mapping[str, Any]
    base: str
    last_report: datetime | None

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Read a run's files; what is not there yet is empty.

        Raises:
            UserError: the folder is not a run's.
        """
        metrics, config = path / METRICS, path / CONFIG
        if not (metrics.is_file() or config.is_file()):
            raise UserError(
                f"{path}: not the folder of a run: it has neither {CONFIG} nor {METRICS}"
            )
        written = _read(config)
        when = datetime.fromtimestamp(metrics.stat().st_mtime) if metrics.is_file() else None
        records = list(_records(_read(metrics)))
        head = written.partition("\n")[0]
        return cls(
            path=path,
            training=_pack(records, "training"),
            validation=_pack(records, "validation"),
            settings=list(_settings(written)),
            config=_plain(written),
            base=head.removeprefix("# Resolved from ").partition(": ")[0]
            if head[:2] == "# "
            else "",
            last_report=when,
        )

    def setting(self, dotted: str) -> Any:
        """A value of the config; None where there is none."""
        value: Any = self.config
        for name in dotted.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    @property
    def last_step(self) -> int:
        """Of all reports."""
        return int(max([0, *self.training.steps[-1:], *self.validation.steps[-1:]]))

    def pictures(self) -> dict[int, Path]:
        """Contact sheets by step."""
        found = sorted((self.path / PICTURES).glob("step_*.jpg"))
        pairs = [(path.stem.removeprefix("step_"), path) for path in found]
        return {int(step): path for step, path in pairs if step.isdecimal()}


def newest_run(directory: Path) -> Path:
    """The run that reported last.

    Raises:
        UserError: there is none.
    """
    found = [file for name in (METRICS, CONFIG) for file in directory.glob(f"*/{name}")]
    if not found:
        raise UserError(f"{directory}: holds no run yet; train one with `python main.py`")
    return max(found, key=lambda file: file.stat().st_mtime).parent


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace") if path.is_file() else ""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _records(lines: str) -> Iterator[dict[str, Any]]:
    """A run in progress, or a crash, may leave half a line."""
    for line in lines.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record


def _pack(records: Sequence[Mapping[str, Any]], phase: str) -> Records:
    mine = sorted((r for r in records if r.get("phase") == phase), key=lambda r: r["step"])
    names = dict.fromkeys(name for r in mine for name in r if name not in ("phase", "step"))
    return Records(
        steps=np.array([r["step"] for r in mine], dtype=np.int64),
        figures={name: np.array([_number(r.get(name)) for r in mine]) for name in names},
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _settings(written: str) -> Iterator[Setting]:
    """The lines of a resolved config; ``yolo.config.resolved_yaml`` writes them."""
    above: list[str] = []
    for line in written.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.lstrip().startswith("- "):  # of the list above it
            yield Setting(".".join(above), line, "")
            continue
        value, _, origin = line.rpartition(_ORIGIN_MARK)
        value = value or line
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], value.strip().partition(":")[0]]
        yield Setting(".".join(above), value, origin if value != line else "")


def _plain(written: str) -> Mapping[str, Any]:
    try:
        values = read_yaml(written, CONFIG)
    except ConfigError:
        return {}
    return values if isinstance(values, dict) else {}
