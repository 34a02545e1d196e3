"""The table in benchmarks/faults.md, from what was measured."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.faults.properties import all_properties
from tests.faults.trial import Property, Result

HEAD = """# Faults

Run on {date} with `make faults` (`python -m tests.faults`): {trials:,} trials, {failures} failures,
{minutes:.0f} minutes of trials, {jobs} at a time. What is guaranteed stands in docs/guarantees.md;
the trials in `tests/faults/`.

- CPU: {cpu}, {cores} cores
- Python {python}, PyTorch {torch}

| property | trial | what is checked | trials | failures | time |
| --- | --- | --- | ---: | ---: | ---: |
"""


def write_report(path: Path, results: Sequence[Result], *, jobs: int) -> None:
    """One line for each kind of trial; failures and skips are named below the table."""
    head = HEAD.format(
        date=time.strftime("%Y-%m-%d"),
        trials=len(results),
        failures=sum(result.outcome == "failed" for result in results),
        minutes=sum(result.seconds for result in results) / 60,
        jobs=jobs,
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        torch=torch.__version__,
    )
    rows = [_row(property_, results) for property_ in all_properties()]
    path.write_text(head + "\n".join(rows) + "\n" + _notes(results))


def _row(property_: Property, results: Sequence[Result]) -> str:
    mine = [result for result in results if result.name == property_.name]
    ran = [result for result in mine if result.outcome != "skipped"]
    failures = sum(result.outcome == "failed" for result in mine)
    seconds = sum(result.seconds for result in mine)
    cells = (
        property_.group,
        property_.name.replace("_", " "),
        property_.checked,
        f"{len(ran):,}" if len(ran) == len(mine) else f"{len(ran):,} of {len(mine):,}",
        str(failures),
        f"{seconds:.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def _notes(results: Sequence[Result]) -> str:
    """Which trials failed (what each wrote stays in its folder), and why some were skipped."""
    seeds: dict[str, list[int]] = {}
    for result in results:
        if result.outcome == "failed":
            seeds.setdefault(result.name, []).append(result.seed)
    lines = [f"- failed: {name} {', '.join(map(str, each))}" for name, each in seeds.items()]
    skipped = [result for result in results if result.outcome == "skipped"]
    reasons = dict.fromkeys((result.name, result.message) for result in skipped)
    lines += [f"- skipped: {name}: {reason}" for name, reason in reasons]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
