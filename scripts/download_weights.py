"""Fetches weights of Darknet's into weights/: what is there already is not fetched again.

An interrupted download goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from yolo.apps.download.downloads import download, readable_size
from yolo.config.command_line import Parser
from yolo.errors import exit_code

MIRROR = "https://pjreddie.com/media/files"

SIZES = {
    "darknet53.conv.74": 162_482_580,
    "darknet19_448.conv.23": 79_327_120,
    "yolov3.weights": 248_007_048,
    "yolov3-spp.weights": 252_209_544,
    "yolov3-tiny.weights": 35_434_956,
    "yolov2.weights": 203_934_260,
    "yolov2-voc.weights": 202_704_260,
}
"""Bytes of each file; .conv.N are encoders pre-trained on ImageNet, the others whole detectors."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("Fetches weights of Darknet's.")
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=", ".join(SIZES))
    add("--list", action="store_true", help="show what there is, and what lies here already")
    add("--folder", type=Path, default=REPOSITORY / "weights", help="folder (default: weights)")
    add("--mirror", default=MIRROR, metavar="URL", help=f"where they lie (default: {MIRROR})")
    arguments = parser.parse(argv)
    unknown = [name for name in arguments.names if name not in SIZES]
    if unknown:
        parser.error(f"no such weights: {', '.join(unknown)}; there are {', '.join(SIZES)}")
    if not arguments.names and not arguments.list:
        parser.error(f"name some of {', '.join(SIZES)}, or --list")
    return arguments


def list_weights(folder: Path) -> None:
    for name, size in SIZES.items():
        here = "  here" if (folder / name).is_file() else ""
        print(f"{name:<24}{readable_size(size):>10}{here}")


def fetch_weights(arguments: argparse.Namespace) -> None:
    for name in arguments.names:
        url = f"{arguments.mirror.rstrip('/')}/{name}"
        path = download(url, arguments.folder / name, size=SIZES[name])
        print(f"{path}: {SIZES[name]:,} bytes")


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch each file, or list all. Returns 0, 1 for a failure, 130 when stopped."""
    arguments = parse_arguments(argv)
    if arguments.list:
        list_weights(arguments.folder)
    return exit_code(
        lambda: fetch_weights(arguments), when_stopped="stopped; start again to go on from here"
    )


if __name__ == "__main__":
    sys.exit(main())
