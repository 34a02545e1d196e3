"""The stages in their order, and the run through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yolo.apps.preflight.anchors import check_anchors
from yolo.apps.preflight.boxes import check_boxes
from yolo.apps.preflight.classes import check_classes
from yolo.apps.preflight.decoding import check_decoding
from yolo.apps.preflight.files import check_files
from yolo.apps.preflight.flight import Flight, Outcome
from yolo.apps.preflight.headers import check_headers
from yolo.apps.preflight.overfitting import check_overfitting
from yolo.apps.preflight.speed import check_speed
from yolo.apps.preflight.truth import check_truth
from yolo.errors import UserError


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing to look at.

    Attributes:
        name: a word.
        title: for the page.
        check: looks; a ``UserError`` of it is a fault.
    """

    name: str
    title: str
    check: Callable[[Flight], Outcome]


STAGES = (
    Stage("files", "Files", check_files),
    Stage("headers", "Image files", check_headers),
    Stage("boxes", "Boxes", check_boxes),
    Stage("classes", "Classes and label map", check_classes),
    Stage("anchors", "Anchors", check_anchors),
    Stage("decoding", "Decoding", check_decoding),
    Stage("truth", "The truth as predictions", check_truth),
    Stage("overfitting", "One batch by heart", check_overfitting),
    Stage("speed", "Speed, memory and time", check_speed),
)
"""The cheapest first."""


@dataclass(frozen=True, slots=True)
class Result:
    """A stage that was run, what it found, and how long it took."""

    stage: Stage
    outcome: Outcome
    seconds: float


def fly(flight: Flight, tell: Callable[[Result], None]) -> list[Result]:
    """Run the stages up to the first fault.

    Args:
        flight: the config to look at.
        tell: is called after each stage.
    """
    results = []
    for stage in STAGES:
        start = time.perf_counter()
        try:
            outcome = stage.check(flight)
        except UserError as error:
            outcome = Outcome(summary="could not be finished", fault=str(error))
        result = Result(stage, outcome, time.perf_counter() - start)
        results.append(result)
        tell(result)
        if outcome.fault is not None:
            break
    return results


def fault_of(results: Sequence[Result]) -> str | None:
    """The sentence that ended it, if any."""
    return results[-1].outcome.fault
