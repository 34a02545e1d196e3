"""Draw a data set with its truth: ``python scripts/visualize_dataset.py --config YAML``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import (
    Parser,
    device_name,
    fraction,
    load_config_or_exit,
    pictures_folder,
)
from yolo.errors import exit_code

ROWS, COLUMNS, PAIRED_COLUMNS = 4, 4, 2

EXAMPLES = """examples:
  python scripts/visualize_dataset.py --config configs/yolov3/darknet53_coco.yaml --split val
  python scripts/visualize_dataset.py --ids 139,285 --checkpoint logs/first_try/best.pt --conf 0.4

The truth is drawn as it was read from the files, ignored regions hatched. With a checkpoint, its
predictions stand beside it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write contact sheets and print their paths.

    Returns:
        0 done, 2 bad config (bad usage exits with it), 1 any other failure.
    """
    arguments = parse(argv)
    config = load_config_or_exit(arguments.config, arguments.overrides).config
    from yolo.apps.predict import Predictor
    from yolo.apps.predict.results import draw_dataset
    from yolo.apps.report.drawing import write_sheets
    from yolo.factory.data import build_dataset

    def work() -> None:
        dataset = build_dataset(config, arguments.split)
        if arguments.ids:
            dataset = dataset.limit(arguments.ids)
        elif arguments.n < len(dataset):
            dataset = dataset.share(arguments.n / len(dataset), seed=config.seed)
        predictor, columns = None, COLUMNS
        if arguments.checkpoint is not None:
            predictor = Predictor.from_checkpoint(
                arguments.checkpoint, device=device_name(arguments.gpu), conf=arguments.conf
            )
            columns = PAIRED_COLUMNS
        tiles = draw_dataset(dataset, predictor, side_px=arguments.tile)
        sheets = write_sheets(tiles, arguments.output, columns=columns, per_sheet=ROWS * columns)
        for path in sheets:
            print(path, flush=True)

    return exit_code(work)


def image_ids(text: str) -> list[int]:
    """The value of --ids.

    Raises:
        argparse.ArgumentTypeError: anything but whole numbers with commas.
    """
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a list of ids such as 139,285"
        ) from None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Draw a data set with its truth.", epilog=EXAMPLES)
    parser.add_config_options()
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="a checkpoint, a run's folder or an exported file, to draw its predictions",
    )
    parser.add_argument("--conf", type=fraction, help="lowest score that is drawn (0.25)")
    parser.add_argument(
        "-n",
        type=int,
        default=ROWS * COLUMNS,
        help="so many random images (16); `seed=1` draws others",
    )
    parser.add_argument(
        "--ids", type=image_ids, metavar="ID,ID", help="images by their ids, instead of -n"
    )
    parser.add_argument(
        "--tile", type=int, default=480, metavar="PX", help="longer side of a drawn image (480)"
    )
    parser.add_gpu_option(one_for="prediction uses")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="for the sheets (predictions/<split>-<date>-<time>)",
    )
    arguments = parser.parse(argv)
    if arguments.n < 1 or not 64 <= arguments.tile <= 4096:
        parser.error("-n must be at least 1, and --tile from 64 to 4096")
    arguments.output = pictures_folder(arguments.output, f"{arguments.split}-")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
