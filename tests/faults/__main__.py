"""Prove what is guaranteed: ``python -m tests.faults [--only NAME] [--trials N] [--jobs N]``.

Finished trials are kept in the folder: started again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = REPOSITORY_ROOT / "logs" / "faults"
REPORT = REPOSITORY_ROOT / "benchmarks" / "faults.md"


def main() -> int:
    """Parse, run what is not done yet, write the table.

    Returns:
        0 if every trial passed or was skipped, 1 otherwise.
    """
    arguments = _parse()
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
    os.chdir(REPOSITORY_ROOT)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also under nohup: trials send it
    from tests.faults.run import run_all, serve  # torch takes seconds to import: after --help

    if arguments.serve:
        serve(arguments.folder)
        return 0
    return run_all(
        arguments.folder,
        REPORT,
        only=arguments.only,
        trials=arguments.trials,
        jobs=arguments.jobs,
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="trials whose name holds this, no report")
    parser.add_argument(
        "--trials", type=int, metavar="N", help="at most so many of each, no report"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="trials at a time, each on one core (2)"
    )
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="for state and scratch")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
