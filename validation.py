"""Score a checkpoint: ``python validation.py logs/<name>/best.pt --conf 0.01 0.001``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from yolo.config import REPOSITORY_ROOT
from yolo.config.command_line import Parser, add_gpu_option

EXAMPLES = """examples:
  python validation.py
  python validation.py logs/first_try/best.pt --conf 0.01 0.001 0.0001 --json scores.json
  python validation.py logs/first_try/best.pt --split test --image-size 608 --gpu 0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the network once over the data and print the COCO figures for each confidence.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    arguments = parse(argv)
    # torch takes seconds to import: only now that the command line has proved right
    from yolo.build.run import newest_checkpoint
    from yolo.build.scoring import score_checkpoint
    from yolo.errors import UserError

    try:
        report = score_checkpoint(
            arguments.checkpoint or newest_checkpoint(arguments.logs),
            devices=None if arguments.gpu == "auto" else arguments.gpu,
            confs=arguments.conf,
            split=arguments.split,
            image_size_px=arguments.image_size,
            per_class=arguments.per_class,
            say=print,
            detections_path=arguments.detections,
        )
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Score a checkpoint with the COCO metric.", epilog=EXAMPLES)
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", help="a checkpoint (the newest run's best.pt)"
    )
    parser.add_argument(
        "--conf", type=fraction, nargs="+", help="confidence thresholds (the training's)"
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="val", help="which images (val)"
    )
    parser.add_argument(
        "--image-size", type=image_size, help="side of the network's input (the training's)"
    )
    add_gpu_option(parser)
    parser.add_argument("--per-class", action="store_true", help="list the AP of each class too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument(
        "--detections", type=Path, metavar="FILE", help="write all boxes as COCO results"
    )
    parser.add_argument(
        "--logs", type=Path, default=REPOSITORY_ROOT / "logs", help="where the runs lie (logs)"
    )
    arguments = parser.parse(argv)
    if arguments.gpu != "auto" and len(arguments.gpu) > 1:
        parser.error("--gpu: scoring uses one device, name one")
    for path in (arguments.json, arguments.detections):
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}; make it first")
    return arguments


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text) if text.replace(".", "", 1).replace("e-", "", 1).isdigit() else -1.0
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
