"""Look for what would spoil a training: ``python scripts/preflight.py --config YAML``.

One to two minutes, from the cheapest check to the most expensive; the first fault ends it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config import Resolved
from yolo.config.command_line import PAGE_SUFFIXES, Parser, load_detector_config
from yolo.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Check data, anchors, evaluation, learning, speed, memory and time.

    Returns:
        0 nothing that would spoil the run, 1 a fault, in one sentence, or a failure of the
        check itself; bad usage or a bad config exits with 2.
    """
    arguments = parse(argv)
    resolved = load_detector_config(arguments.config, arguments.overrides)
    return exit_code(lambda: check(arguments, resolved))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; exits with 2 on bad usage."""
    parser = Parser(description="Look for what would spoil a training before it begins.")
    add = parser.add_argument
    parser.add_config_options()
    parser.add_gpu_option(one_for="preflight uses")
    add("--json", type=Path, metavar="FILE", help="write all figures and findings")
    add("--html", type=Path, metavar="FILE", help="write a page with pictures, one file")
    arguments = parser.parse(argv)
    if arguments.html is not None and arguments.html.suffix.lower() not in PAGE_SUFFIXES:
        parser.error(f"--html {arguments.html}: must end in .html")
    return arguments


def check(arguments: argparse.Namespace, resolved: Resolved) -> int:
    """Run the stages and print each as it ends.

    Raises:
        UserError: there is no such device, or a report cannot be written.
    """
    from yolo.apps import preflight
    from yolo.train.distributed import one_process

    context = preflight.Preflight(resolved=resolved, ranks=one_process(arguments.gpu))
    results = []
    for result in preflight.run_stages(context):
        print(*result.lines(), sep="\n", flush=True)
        results.append(result)
    is_sound = results[-1].outcome.fault is None
    print(preflight.conclusion(results), file=sys.stdout if is_sound else sys.stderr, flush=True)
    reports = ((arguments.json, preflight.write_json), (arguments.html, preflight.write_html))
    for path, write in reports:
        if path is not None:
            write(path, context, results)
            print(f"written: {path}")
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
