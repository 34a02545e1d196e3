"""All trials, some beside each other, kept in a file so that a second start goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tests.faults.properties import all_properties
from tests.faults.report import write_report
from tests.faults.trial import Property, Result, run_trial
from yolo.config import REPOSITORY_ROOT

COMMON = (
    "tests/train/toys.py",
    *(f"tests/faults/{name}.py" for name in ("fuzz_trials", "tiny", "trial")),
)
"""What all trials are made of; where it or the code that is judged changes, all begin anew."""


def run_all(folder: Path, report: Path, *, only: str | None, trials: int | None, jobs: int) -> int:
    """Run what the folder's state lacks.

    Args:
        folder: for the state and what the trials write.
        report: the table, written after a whole run only.
        only: a part of the names of the trials to run; None for all.
        trials: at most so many of each; None for the full number.
        jobs: trials that run at a time.

    Returns:
        0 if all passed or were skipped, 1 otherwise.
    """
    folder = _prepare(folder)
    chosen = [p for p in all_properties() if only is None or only in p.name]
    if not chosen:
        print(f"no trial's name holds {only!r}; there are:", file=sys.stderr)
        print(*(p.name for p in all_properties()), sep="\n", file=sys.stderr)
        return 1
    wanted = [
        (p, seed)
        for p in chosen
        for seed in range(p.full if trials is None else min(p.full, trials))
    ]
    results = _run(wanted, folder, jobs)
    failures = [result for result in results if result.outcome == "failed"]
    for result in failures:
        print(f"FAILED {result.name} {result.seed}: {result.message}", flush=True)
    print(f"{len(results)} trials, {len(failures)} failures")
    if only is None and trials is None:
        write_report(report, results, jobs=jobs)
        print(f"written: {report}")
    return 1 if failures else 0


def _prepare(folder: Path) -> Path:
    """The folder, emptied if what it holds was found out about other code."""
    folder = folder.resolve()
    told, code = folder / "code.txt", _digest([*Path("yolo").rglob("*.py"), *map(Path, COMMON)])
    if not told.exists() or told.read_text() != code:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        told.write_text(code)
    (folder / "shared").mkdir(exist_ok=True)  # what trials have in common
    return folder


def _digest(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()


def _run(wanted: list[tuple[Property, int]], folder: Path, jobs: int) -> list[Result]:
    codes = {p.name: _digest([p.file]) for p, _ in wanted}
    done = {(result.name, result.seed): result for result in _read_state(folder, codes)}
    longest_first = sorted(wanted, key=lambda pair: -pair[0].limit_s)  # else one lane waits for it
    left = [(p.name, seed) for p, seed in longest_first if (p.name, seed) not in done]
    print(f"{len(wanted)} trials, {len(left)} to run", flush=True)
    start, lock, rest = time.monotonic(), threading.Lock(), iter(left)

    def serve_lane(number: int) -> None:
        """Run what is left until nothing is, one trial at a time, beside the other lanes."""
        server = Server(folder / f"lane{number}")
        for name, seed in rest:
            result = server.run(name, seed)
            with lock, (folder / "state.jsonl").open("a") as file:
                done[name, seed] = result
                file.write(json.dumps({"code": codes[name], **asdict(result)}) + "\n")
                _tell(result, len(done), len(wanted), time.monotonic() - start)
        server.close()

    with ThreadPoolExecutor(jobs) as lanes:
        list(lanes.map(serve_lane, range(jobs)))
    return [done[p.name, seed] for p, seed in wanted]


def _read_state(folder: Path, codes: Mapping[str, str]) -> Iterator[Result]:
    """The results of trials that are still what they were."""
    path = folder / "state.jsonl"
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # half a line, of a run that was killed
            continue
        if entry.pop("code") == codes.get(entry["name"]):
            yield Result(**entry)


def _tell(result: Result, number: int, of: int, seconds: float) -> None:
    """A line that overwrites itself on a terminal; elsewhere one for each failure and 50th."""
    line = f"[{number}/{of}] {seconds:.0f} s  {result.name} {result.seed}: {result.outcome}"
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="" if result.outcome != "failed" else "\n", flush=True)
    elif result.outcome == "failed" or number % 50 == 0 or number == of:
        print(f"{line} {result.message}", flush=True)


class Server:
    """A process that has imported everything once and forks one trial at a time on demand.

    Args:
        folder: for the trials, and for what they share.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults", "--serve", "--folder", str(folder)],
            cwd=REPOSITORY_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, seed: int) -> Result:
        """Run a trial and wait for its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{name} {seed}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks the trials has ended"
        return Result(**json.loads(answer))

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def serve(folder: Path) -> None:
    """Run the trials that standard input names (``name seed``), answer each with a JSON line."""
    folder = _prepare(folder)
    by_name = {p.name: p for p in all_properties()}
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        name, seed = line.split()
        result = run_trial(by_name[name], int(seed), folder / f"{name}_{seed}")
        answers.write(json.dumps(asdict(result)) + "\n")
        answers.flush()
