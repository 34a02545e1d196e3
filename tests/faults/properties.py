"""All properties, and their trials by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.faults import (
    best_checkpoint,
    bit_rot,
    disk,
    equal_gradients,
    exact_resume,
    fuzz_annotations,
    fuzz_headers,
    fuzz_images,
    golden,
    hostile,
    hostile_archives,
    kill,
    lost_process,
    non_finite,
    order,
    signals,
    soak,
    two_runs,
)
from tests.faults.trial import Trial

MODULES: tuple[ModuleType, ...] = (
    exact_resume,
    order,
    equal_gradients,
    kill,
    signals,
    lost_process,
    disk,
    bit_rot,
    non_finite,
    best_checkpoint,
    fuzz_headers,
    fuzz_images,
    fuzz_annotations,
    hostile,
    hostile_archives,
    two_runs,
    soak,
    golden,
)
"""Each has PROPERTY, TRIALS and, by a trial's name, CHECKED, FULL, QUICK and maybe LIMIT_S."""

LIMIT_S = 60.0
"""How long a trial may take where its module says nothing else."""


@dataclass(frozen=True, kw_only=True)
class Property:
    """One line of the table.

    Attributes:
        group: number and name of the property.
        name: of the trial.
        file: that it stands in.
        trial: the function.
        checked: what it checks, in a line.
        full, quick: trials of the full run, and of every run of the test suite.
        limit_s: how long one may take.
    """

    group: str
    name: str
    file: Path
    trial: Trial
    checked: str
    full: int
    quick: int
    limit_s: float


def all_properties() -> Iterator[Property]:
    """In the order of the table."""
    for module in sorted(MODULES, key=lambda module: int(module.PROPERTY.split()[0])):
        limits = getattr(module, "LIMIT_S", {})
        for name, trial in module.TRIALS.items():
            yield Property(
                group=module.PROPERTY,
                name=name,
                file=Path(str(module.__file__)),
                trial=trial,
                checked=module.CHECKED[name],
                full=module.FULL[name],
                quick=module.QUICK[name],
                limit_s=limits.get(name, LIMIT_S),
            )
