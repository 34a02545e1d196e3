"""Fetches Pascal VOC 2007 and 2012 and unpacks them where the VOC configs look for them.

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

BASE_URL = "http://host.robots.ox.ac.uk/pascal/VOC"

ARCHIVES = {
    "2007/trainval": Archive("voc2007/VOCtrainval_06-Nov-2007.tar", size=460_032_000),
    "2007/test": Archive("voc2007/VOCtest_06-Nov-2007.tar", size=451_020_800),
    "2012/trainval": Archive("voc2012/VOCtrainval_11-May-2012.tar", size=1_999_639_040),
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("Fetches and unpacks Pascal VOC 2007 and 2012.")
    add = parser.add_argument
    add(
        "--root",
        type=Path,
        default=REPOSITORY / "data",
        help="folder to make VOCdevkit in (default: data)",
    )
    add(
        "--sets",
        nargs="+",
        choices=list(ARCHIVES),
        default=list(ARCHIVES),
        metavar="SET",
        help="2007/trainval (0.46 GB), 2007/test (0.45 GB), 2012/trainval (2 GB); default: all",
    )
    add("--delete-tars", action="store_true", help="remove each tar once it is unpacked")
    add("--base-url", default=BASE_URL, help=f"server or mirror (default: {BASE_URL})")
    return parser.parse(argv)


def fetch_voc(arguments: argparse.Namespace) -> None:
    fetch_archives(
        [archive for name, archive in ARCHIVES.items() if name in arguments.sets],
        arguments.root,
        base_url=arguments.base_url,
        delete=arguments.delete_tars,
        advice="fewer --sets, or --delete-tars",
    )
    print(f"Pascal VOC is ready in {arguments.root / 'VOCdevkit'}")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return exit_code(
        lambda: fetch_voc(arguments), when_stopped="stopped; start again to go on from here"
    )


if __name__ == "__main__":
    sys.exit(main())
