"""What would spoil a training, looked for before it begins: stages from cheap to expensive."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_json

from yolo.apps.preflight.anchors import check_anchors
from yolo.apps.preflight.boxes import check_boxes
from yolo.apps.preflight.checks import Outcome, Preflight
from yolo.apps.preflight.datasets import check_classes, check_files
from yolo.apps.preflight.images import check_decoding, check_headers
from yolo.apps.preflight.overfit import check_overfitting
from yolo.apps.preflight.speed import check_speed
from yolo.apps.preflight.truth import check_truth
from yolo.apps.report.page import render, write_page
from yolo.errors import UserError
from yolo.files import write_or_refuse

STAGES = (
    ("files", "Files", check_files),
    ("headers", "Image files", check_headers),
    ("boxes", "Boxes", check_boxes),
    ("classes", "Classes and label map", check_classes),
    ("anchors", "Anchors", check_anchors),
    ("decoding", "Decoding", check_decoding),
    ("truth", "The truth as predictions", check_truth),
    ("overfitting", "Overfitting one batch", check_overfitting),
    ("speed", "Speed, memory and time", check_speed),
)
"""Name, title and check, the cheapest first; a ``UserError`` of the check is a fault."""


class Result(NamedTuple):
    """A stage that was run, what it found, and how long it took."""

    name: str
    title: str
    outcome: Outcome
    seconds: float

    def lines(self) -> list[str]:
        """As the terminal shows it."""
        found = self.outcome
        mark = "FAULT" if found.fault is not None else "ok"
        return [
            f"{self.name:<12} {mark:<5} {self.seconds:5.1f} s  {found.summary}",
            *(f"    {line}" for line in found.lines),
            *(f"  warning: {warning}" for warning in found.warnings),
        ]


def run_stages(preflight: Preflight) -> Iterator[Result]:
    """Run the stages up to the first fault."""
    for name, title, check in STAGES:
        start = time.perf_counter()
        try:
            outcome = check(preflight)
        except UserError as error:
            outcome = Outcome(summary="could not be finished", fault=str(error))
        yield Result(name, title, outcome, time.perf_counter() - start)
        if outcome.fault is not None:
            return


def conclusion(results: Sequence[Result]) -> str:
    """The last line."""
    seconds, fault = sum(result.seconds for result in results), results[-1].outcome.fault
    if fault is not None:
        return f"FAULT in stage {results[-1].name}, after {seconds:.0f} s: {fault}"
    warnings = sum(len(result.outcome.warnings) for result in results)
    return f"nothing that would spoil the run was found in {seconds:.0f} s; warnings: {warnings}"


def write_json(path: Path, preflight: Preflight, results: Sequence[Result]) -> None:
    """Write all figures; what is not finite becomes null."""
    report = {
        "config": str(preflight.resolved.path),
        "fault": results[-1].outcome.fault,
        "stages": [
            {
                "name": result.name,
                "seconds": round(result.seconds, 3),
                "summary": result.outcome.summary,
                "fault": result.outcome.fault,
                "warnings": list(result.outcome.warnings),
                "figures": result.outcome.figures,
            }
            for result in results
        ],
    }
    content = to_json(report, indent=1, inf_nan_mode="null", fallback=lambda value: value.item())
    write_or_refuse("the json", path, content, remedy="name another place")


def write_html(path: Path, preflight: Preflight, results: Sequence[Result]) -> None:
    """Write the page: the verdict first, then each stage."""
    page = render("preflight.html", preflight=preflight, results=results, stages=len(STAGES))
    write_page(path, page)
