"""What a run's folder holds, whether the run is done, going on or broken off."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from yolo.config import ConfigError
from yolo.config.save import Setting, read_settings
from yolo.errors import UserError

METRICS, CONFIG, PICTURES = "metrics.jsonl", "config.yaml", "pictures"


@dataclass(frozen=True, kw_only=True)
class Records:
    """The reports of one phase, in the order of their steps."""

    steps: np.ndarray  # int (R,)
    figures: dict[str, np.ndarray]  # float (R,), NaN where a report lacks it

    def __len__(self) -> int:
        return len(self.steps)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The figures of a group by the rest of their name."""
        start = f"{prefix}/"
        return {n.removeprefix(start): v for n, v in self.figures.items() if n.startswith(start)}


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run as its files describe it."""

    path: Path
    training: Records
    validation: Records
    settings: Mapping[str, Setting]  # of the config by dotted key, none if it cannot be read
    base: str  # the YAML that the run was started with, "" if unknown
    last_report: datetime | None  # when the metrics were last written

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Read a run's files; what is not there yet is empty."""
        metrics, config = path / METRICS, path / CONFIG
        if not (metrics.is_file() or config.is_file()):
            raise UserError(
                f"{path}: not the folder of a run: it has neither {CONFIG} nor {METRICS}"
            )
        base = re.match("# Resolved from (.*?): ", _read(config))
        when = datetime.fromtimestamp(metrics.stat().st_mtime) if metrics.is_file() else None
        records = list(_records(_read(metrics)))
        try:
            settings = read_settings(config)
        except ConfigError:
            settings = {}
        return cls(
            path=path,
            training=_pack(records, "training"),
            validation=_pack(records, "validation"),
            settings=settings,
            base=base[1] if base else "",
            last_report=when,
        )

    def value(self, key: str) -> Any:
        """Of a dotted key of the config; None where there is none."""
        return self.settings[key].value if key in self.settings else None

    @property
    def last_step(self) -> int:
        return int(max([0, *self.training.steps[-1:], *self.validation.steps[-1:]]))

    def pictures(self) -> dict[int, Path]:
        """Contact sheets by step."""
        found = sorted((self.path / PICTURES).glob("step_*.jpg"))
        steps = {path.stem.removeprefix("step_"): path for path in found}
        return {int(step): path for step, path in steps.items() if step.isdecimal()}


def newest_run(directory: Path) -> Path:
    """The run that reported last."""
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
