"""Write a data set in another format: ``python scripts/convert_dataset.py --to coco ...``.

The new folder reads back with the very same boxes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import DEFAULT_CONFIG, Parser, load_detector_config
from yolo.errors import exit_code

if TYPE_CHECKING:
    from yolo.data.formats.detection import DetectionDataset

FORMATS = ("coco", "csv_boxes", "voc", "yolo_text")

EXAMPLES = """examples:
  python scripts/convert_dataset.py --config my.yaml --split val --to coco --output data/mine/val
  python scripts/convert_dataset.py --data '{type: voc, root: /data/bccd, image_sets: [train]}' \\
      --to yolo_text --output /data/bccd_text --images copy

Regions that are to be ignored (COCO's crowds, VOC's difficult objects) stay marked in coco and voc;
csv_boxes and yolo_text know none, so they are left out and counted. Nothing is overwritten.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Convert and print the section of a config that reads the result.

    Returns:
        0 done, 1 a failure; bad usage or a bad config exits with 2.
    """
    arguments = parse(argv)
    split = "train" if arguments.data is not None else arguments.split
    # Where an image cannot be read, its size and boxes may be made up: nothing to write down.
    overrides = [*arguments.overrides, "data.on_error=stop"]
    if arguments.data is not None:
        # Any valid config will do: what counts is replaced, and the rest is not looked at.
        overrides.append(f"data.train={arguments.data}")
    config = load_detector_config(arguments.config or DEFAULT_CONFIG, overrides).config
    from yolo.apps.convert.conversion import convert
    from yolo.factory.data import build_dataset

    def work() -> None:
        dataset = build_dataset(config, split)
        for kind, count in dataset.findings.counts.items():
            print(f"corrected while reading: {count:,} boxes {kind}")
        print(
            "".join(f"{x}\n" for x in (*dataset.findings.notes, *dataset.findings.warnings)), end=""
        )
        names = ("to", "output", "images", "split")
        section, boxes = convert(dataset, **{name: getattr(arguments, name) for name in names})
        print("\n".join(describe(dataset, section, boxes, arguments)))

    return exit_code(work, when_stopped="stopped: nothing was written")


def describe(
    dataset: DetectionDataset, section: dict[str, Any], boxes: int, arguments: argparse.Namespace
) -> Iterator[str]:
    """What was written, and how a config names it; json is YAML, and quotes what needs it."""
    yield f"{arguments.output}: {len(dataset):,} images, {boxes:,} boxes as {arguments.to}"
    if left_out := len(dataset.annotations.labels) - boxes:
        yield (
            f"left out: {left_out:,} ignored regions, which {arguments.to} cannot mark; what is in "
            "them will count as background"
        )
    yield f"\ndata:\n  {arguments.split}:"
    for key, value in section.items():
        shown = value if key == "type" else json.dumps(value, ensure_ascii=False, default=str)
        yield f"    {key}: {shown}"
    yield f"  class_names: {json.dumps(dataset.class_names, ensure_ascii=False)}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Write a data set in another format.", epilog=EXAMPLES)
    parser.add_argument("--config", type=Path, metavar="YAML", help="the config that has the data")
    parser.add_argument(
        "--data", metavar="YAML", help="the section of a data set itself, instead of --config"
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="train",
        help="which data set of the config, and what the new one is called (train)",
    )
    parser.add_argument("--to", required=True, choices=FORMATS, help="the new format")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="the new folder; must not exist"
    )
    parser.add_argument(
        "--images",
        choices=("link", "copy", "keep"),
        default="link",
        help="hard links to the images, which take no space (the default), copies of them, or none:"
        " they stay where they are (coco, csv_boxes)",
    )
    parser.add_overrides(
        "set a value of the config, such as data.class_names=[cat,dog] or data.limit=10"
    )
    arguments = parser.parse(argv)
    if (arguments.config is None) == (arguments.data is None):
        parser.error("name the data: give one of --config and --data")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
