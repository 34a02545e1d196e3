"""Put runs side by side: ``python scripts/compare_runs.py logs/A logs/B``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import Parser, picture_file
from yolo.errors import exit_code
from yolo.files import write_or_refuse

EXAMPLES = """examples:
  python scripts/compare_runs.py logs/*
  python scripts/compare_runs.py logs/plain-* logs/mosaic-* --csv runs.csv --output runs.png
"""


def main(argv: Sequence[str] | None = None) -> int:
    """A row for each run: its best figures, their step, minutes of training, speed, and settings.

    Runs that differ in the seed alone are one row, mean ± standard deviation.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    parser = Parser(
        "Put runs side by side, those that differ in the seed alone in one row.", EXAMPLES
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs: logs/<name>")
    add(
        "--scores",
        metavar="NAME",
        help="take the figures from this file in each run's folder, a --json of validation.py "
        "(the best evaluation while training)",
    )
    add("--csv", type=Path, metavar="FILE", help="write a line for each run, with all settings")
    add("--output", type=picture_file, metavar="PICTURE", help="a .png or .jpg file to draw")
    arguments = parser.parse(argv)
    for file in (arguments.csv, arguments.output):
        parser.check_file(file)
    return exit_code(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """What ``main`` does once the command line has proved right."""
    from benchmarks.comparison import Comparison, Run
    from yolo.apps.report.drawing import save_image

    runs = [run.parent if run.suffix == ".pt" else run for run in arguments.runs]
    comparison = Comparison.of([Run.read(run, arguments.scores) for run in runs])
    print(comparison.text())
    if arguments.csv is not None:
        content = comparison.csv().encode()
        write_or_refuse("the csv", arguments.csv, content, remedy="name another --csv")
    if arguments.output is not None:
        save_image(arguments.output, comparison.picture())


if __name__ == "__main__":
    sys.exit(main())
