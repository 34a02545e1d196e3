"""What a preflight found: lines for the terminal, a json, and a page with its pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo.apps.preflight.flight import Flight
from yolo.apps.preflight.stages import STAGES, Result, fault_of
from yolo.apps.report.page import (
    Cell,
    Html,
    Section,
    details,
    page,
    table,
    text,
    verdict,
    write_page,
)
from yolo.errors import UserError
from yolo.files import atomic_write


def lines_of(result: Result) -> list[str]:
    """A stage as the terminal shows it."""
    outcome = result.outcome
    mark = "FAULT" if outcome.fault is not None else "ok"
    lines = [f"{result.stage.name:<12} {mark:<5} {result.seconds:5.1f} s  {outcome.summary}"]
    lines += [f"    {line}" for line in outcome.lines]
    lines += [f"  warning: {warning}" for warning in outcome.warnings]
    return lines


def conclusion(results: Sequence[Result]) -> str:
    """The last line."""
    seconds, fault = sum(result.seconds for result in results), fault_of(results)
    if fault is not None:
        return f"FAULT in stage {results[-1].stage.name}, after {seconds:.0f} s: {fault}"
    warnings = sum(len(result.outcome.warnings) for result in results)
    return f"nothing that would spoil the run was found in {seconds:.0f} s; warnings: {warnings}"


def write_json(path: Path, flight: Flight, results: Sequence[Result]) -> None:
    """Write all figures; what is not finite becomes null.

    Raises:
        UserError: the place cannot be written.
    """
    report = {
        "config": str(flight.resolved.path),
        "fault": fault_of(results),
        "stages": [
            {
                "name": result.stage.name,
                "seconds": round(result.seconds, 3),
                "summary": result.outcome.summary,
                "fault": result.outcome.fault,
                "warnings": list(result.outcome.warnings),
                "figures": _plain(result.outcome.figures),
            }
            for result in results
        ],
    }
    content = json.dumps(report, indent=1, allow_nan=False)
    try:
        atomic_write(path, content.encode())
    except OSError as error:
        raise UserError(
            f"{path}: the json cannot be written ({error.strerror or error}); name another place"
        ) from error


def _plain(value: Any) -> Any:
    """Values as json knows them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_html(path: Path, flight: Flight, results: Sequence[Result]) -> None:
    """Write the page.

    Raises:
        UserError: the place cannot be written.
    """
    write_page(path, html_of(flight, results))


def html_of(flight: Flight, results: Sequence[Result]) -> str:
    """The whole page: the verdict first, then each stage."""
    seconds = sum(result.seconds for result in results)
    subtitle = (
        f"{flight.resolved.path} · {flight.ranks.device} · {len(results)} of {len(STAGES)} stages "
        f"in {seconds:.0f} s"
    )
    sections = [Section("Verdict", _verdict(results))]
    sections += [Section(result.stage.title, _blocks(result)) for result in results]
    return page(f"Preflight of {flight.resolved.path.stem}", subtitle, sections)


def _verdict(results: Sequence[Result]) -> list[Html]:
    fault = fault_of(results)
    warned = any(result.outcome.warnings for result in results)
    kind = verdict("bad", fault) if fault is not None else (
        verdict("fair" if warned else "good", "Nothing that would spoil the run was found.")
    )  # fmt: skip
    rows: list[list[Cell]] = [
        [
            result.stage.name,
            "fault" if result.outcome.fault is not None else "ok",
            len(result.outcome.warnings),
            f"{result.seconds:.1f} s",
            result.outcome.summary,
        ]
        for result in results
    ]
    return [kind, table(["stage", "", "warnings", "time", "summary"], rows)]


def _blocks(result: Result) -> list[Html]:
    outcome = result.outcome
    blocks = [text(f"{outcome.summary}.")]
    if outcome.fault is not None:
        blocks.append(verdict("bad", outcome.fault))
    blocks += [verdict("fair", warning) for warning in outcome.warnings]
    blocks += outcome.blocks
    if outcome.lines:
        lines = [text(line) for line in outcome.lines]
        blocks.append(details("as on the terminal", lines))
    return blocks
