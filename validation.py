"""Score checkpoints: ``python validation.py logs/<name>/best.pt --conf 0.01 0.001``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial

from yolo.config.validation_line import ScoreArguments, parse_score_arguments
from yolo.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run each network once over the data and print its figures for each confidence.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    arguments = parse_score_arguments(argv)
    return exit_code(lambda: score(arguments))


def score(arguments: ScoreArguments) -> None:
    """What ``main`` does once the command line has proved right."""
    # torch takes seconds to import: only now
    from yolo.factory.scoring import score_checkpoints

    analyse = draw_curves = None
    if arguments.analyse:
        from yolo.apps.report.analysis import write_analysis

        analyse = partial(write_analysis, log=print, place=arguments.analysis_place)
    if arguments.curves is not None:
        from yolo.apps.report.curves import write_curves

        draw_curves = partial(write_curves, log=print, place=arguments.curves)
    report = score_checkpoints(arguments, log=print, analyse=analyse, draw_curves=draw_curves)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
