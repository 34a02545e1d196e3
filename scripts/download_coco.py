"""Fetches COCO 2017 (images and annotations) and unpacks it where the COCO configs look for it.

What is there already is not fetched again, and an interrupted download goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from yolo.apps.download.archives import Archive, fetch_archives
from yolo.config.command_line import Parser
from yolo.errors import exit_code

BASE_URL = "http://images.cocodataset.org"

ARCHIVES = {
    "annotations": Archive("annotations/annotations_trainval2017.zip", 3.5),
    "train": Archive("zips/train2017.zip", 1.02),
    "val": Archive("zips/val2017.zip", 1.02),
    "test": Archive("zips/test2017.zip", 1.02),
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("Fetches and unpacks COCO 2017.")
    add = parser.add_argument
    add("--root", type=Path, default=REPOSITORY / "data/coco", help="folder (default: data/coco)")
    add(
        "--splits",
        nargs="+",
        choices=list(ARCHIVES),
        default=["train", "val"],
        metavar="SPLIT",
        help="train (19 GB), val (0.8 GB), test (6.6 GB; no truth), annotations (0.25 GB; "
        "always fetched too); default: train val",
    )
    add("--delete-zips", action="store_true", help="remove each zip once it is unpacked")
    add("--base-url", default=BASE_URL, help=f"server or mirror (default: {BASE_URL})")
    return parser.parse(argv)


def fetch_coco(arguments: argparse.Namespace) -> None:
    """The annotations come first: they are small, and trouble shows early."""
    wanted = [ARCHIVES[name] for name in ARCHIVES if name in {"annotations", *arguments.splits}]
    fetch_archives(
        wanted,
        arguments.root,
        base_url=arguments.base_url,
        delete=arguments.delete_zips,
        advice="fewer --splits, or --delete-zips",
    )
    print(f"COCO 2017 is ready in {arguments.root}")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return exit_code(
        lambda: fetch_coco(arguments), when_stopped="stopped; start again to go on from here"
    )


if __name__ == "__main__":
    sys.exit(main())
