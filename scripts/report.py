"""Write a run's page: ``python scripts/report.py logs/<name>``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import PAGE_SUFFIXES, Parser
from yolo.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """One HTML file with curves, config, speed and pictures of a run, done or in progress.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    parser = Parser(description="Write the page of a run: one HTML file with everything inside.")
    parser.add_argument("run", type=Path, nargs="?", help="logs/<name> (the newest run)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="an .html file (report.html in the run's folder)",
    )
    parser.add_logs_option()
    arguments = parser.parse(argv)
    output = arguments.output
    if output is not None and output.suffix.lower() not in PAGE_SUFFIXES:
        parser.error(f"--output {output}: must end in .html")
    from yolo.apps.report.run import newest_run, write_report

    def work() -> None:
        run = arguments.run or newest_run(arguments.logs)
        run = run.parent if run.suffix == ".pt" else run  # a checkpoint stands for its run
        print(write_report(run, output))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
