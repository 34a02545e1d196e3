"""All properties, and their trials by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from tests.faults.trial import Property, Trial

MODULES = (
    *("exact_resume", "order", "equal_gradients", "kill", "signals", "lost_process", "disk"),
    *("bit_rot", "non_finite", "best_checkpoint", "fuzz_headers", "fuzz_images"),
    *("fuzz_annotations", "hostile", "hostile_models", "hostile_archives", "hostile_links"),
    *("two_runs", "soak", "golden", "waits"),
    *("several_processes", "changed_data"),
)
"""In the order of the table. Each has PROPERTY, number and name, and TRIALS."""


def all_properties() -> Iterator[Property]:
    """In the order of the table."""
    for module in (import_module(f"tests.faults.{name}") for name in MODULES):
        for row in module.TRIALS:
            yield replace(
                row,
                name=row.name or row.trial.__name__,
                checked=row.checked or _first_sentence(row.trial),
                group=module.PROPERTY,
                file=Path(str(module.__file__)),
            )


def _first_sentence(trial: Trial) -> str:
    """The first paragraph of its docstring, as a cell of the table."""
    text = " ".join((trial.__doc__ or "").partition("\n\n")[0].split()).removesuffix(".")
    return text[0].lower() + text[1:]
