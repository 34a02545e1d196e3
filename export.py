"""Write a checkpoint as files for other programs: ``python export.py logs/<name>/best.pt``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from yolo.config import REPOSITORY_ROOT
from yolo.config.command_line import Parser

EXAMPLES = """examples:
  python export.py --format darknet
  python export.py logs/first_try/best.pt --format darknet --output weights/mine --thresh 0.01
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files and name them.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    arguments = parse(argv)
    # torch takes seconds to import: only now that the command line has proved right
    from yolo.build.run import newest_checkpoint
    from yolo.errors import UserError

    try:
        checkpoint = arguments.checkpoint or newest_checkpoint(arguments.logs)
        for path in FORMATS[arguments.format](checkpoint, arguments):
            print(path)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _darknet(checkpoint: Path, arguments: argparse.Namespace) -> list[Path]:
    from yolo.build.darknet_export import export_darknet

    return export_darknet(
        checkpoint,
        stem=arguments.output,
        image_size_px=arguments.image_size,
        thresh=arguments.thresh,
    )


FORMATS: dict[str, Callable[[Path, argparse.Namespace], list[Path]]] = {"darknet": _darknet}
"""``--format`` -> what writes it; it returns the files."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Write a checkpoint for other programs.", epilog=EXAMPLES)
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", help="a checkpoint (the newest run's best.pt)"
    )
    parser.add_argument(
        "--format", choices=sorted(FORMATS), required=True, help="darknet: .cfg, .weights, .names"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="STEM",
        help="path of the files without their ending (the checkpoint's)",
    )
    parser.add_argument(
        "--image-size", type=image_size, help="side of the network's input (the training's)"
    )
    parser.add_argument(
        "--thresh",
        type=fraction,
        help="scores up to it become 0 where OpenCV runs the cfg (YOLOv3: 0.2, YOLOv2: 0.6)",
    )
    parser.add_argument(
        "--logs", type=Path, default=REPOSITORY_ROOT / "logs", help="where the runs lie (logs)"
    )
    arguments = parser.parse(argv)
    if arguments.output is not None and not arguments.output.parent.is_dir():
        folder = arguments.output.parent
        parser.error(f"--output {arguments.output}: there is no folder {folder}; make it first")
    return arguments


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return value


def image_size(text: str) -> int:
    """A multiple of 32."""
    if not text.isdigit() or int(text) % 32 or not 32 <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r} must be a multiple of 32 from 32 to 2048")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
