"""Score checkpoints: ``python validation.py logs/<name>/best.pt --conf 0.01 0.001``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial

from yolo.config.validation_line import parse_score_arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run each network once over the data and print its figures for each confidence.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    arguments = parse_score_arguments(argv)
    # torch takes seconds to import: only now that the command line has proved right
    from yolo.build.scoring import score_checkpoints
    from yolo.errors import UserError

    analyse = None
    if arguments.analyse:
        from yolo.report.analysis import write_analysis

        analyse = partial(write_analysis, say=print, place=arguments.analysis_place)
    try:
        report = score_checkpoints(arguments, say=print, analyse=analyse)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
