"""Try a trained detector in the browser: ``python scripts/demo.py [CHECKPOINT]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import Parser, device_name, fraction
from yolo.errors import UserError, exit_code

EXAMPLES = """examples:
  python scripts/demo.py
  python scripts/demo.py logs/first_try/best.pt --gpu 0 --port 7861
  python scripts/demo.py logs/first_try/best.pt --make-space my_space
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page, or write a Space.

    Returns:
        0 done, 1 a failure that one sentence explains, 130 when interrupted; bad usage exits with
        2.
    """
    arguments = parse(argv)
    return exit_code(lambda: demonstrate(arguments))


def demonstrate(arguments: argparse.Namespace) -> None:
    """What ``main`` does once the command line has proved right."""
    # torch takes seconds to import: only now
    from yolo.apps.demo.show import make_space, show
    from yolo.train.run_folder import find_checkpoint

    checkpoint = find_checkpoint(arguments.checkpoint, arguments.logs)
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint}: there is no such file; `python main.py` trains a model and writes "
            "logs/<name>/best.pt"
        )
    if arguments.make_space is not None:
        print(*make_space(checkpoint, arguments.make_space), sep="\n")
        return
    show(
        checkpoint,
        device=device_name(arguments.gpu),
        conf=arguments.conf,
        host=arguments.host,
        port=arguments.port,
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        description="Serve a page on this machine that shows what a detector finds.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        help="a checkpoint, a run's folder or an exported file (the newest run's best.pt)",
    )
    parser.add_argument(
        "--conf",
        type=lambda text: text if text == "auto" else fraction(text),
        help="lowest score that counts at first (0.25); auto: as in scripts/predict.py",
    )
    parser.add_argument(
        "--port", type=port, help="of the page's address (the first free one from 7860 on)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (127.0.0.1, which only this machine reaches); 0.0.0.0, as in a "
        "container, lets everybody in who reaches the machine",
    )
    parser.add_gpu_option(one_for="the page uses")
    parser.add_argument(
        "--make-space",
        type=Path,
        metavar="DIR",
        help="write the folder that a hosted Space runs, instead of serving the page",
    )
    parser.add_logs_option()
    return parser.parse(argv)


def port(text: str) -> int:
    """A port that a user may listen at."""
    if not text.isascii() or not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 1024 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
