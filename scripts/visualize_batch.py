"""Draw a training batch as the network gets it: ``python scripts/visualize_batch.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import Parser, load_config_or_exit, pictures_folder
from yolo.errors import exit_code

PER_SHEET, COLUMNS = 16, 4

EXAMPLES = """examples:
  python scripts/visualize_batch.py --config configs/yolov3/darknet53_coco.yaml
  python scripts/visualize_batch.py --step 5000 -n 64 'data.mosaic={p: 1}' data.image_size=608

The images come from the training's own stream, augmented as at that step, pass the model's first
layer and are turned back into pixels. Ignored regions are hatched.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write contact sheets and print their paths.

    Returns:
        0 done, 2 bad config (bad usage exits with it), 1 any other failure.
    """
    arguments = parse(argv)
    # The same images come out for any number of workers, and one batch needs none.
    overrides = [*arguments.overrides, "data.workers=0"]
    config = load_config_or_exit(arguments.config, overrides).config
    from yolo.apps.report.drawing import write_sheets
    from yolo.apps.report.preview import build_normalise, draw_step, training_step
    from yolo.factory.data import build_dataset

    def work() -> None:
        dataset = build_dataset(config, "train")
        batches = training_step(config, dataset, arguments.step)
        images = sum(map(len, batches))
        size_px = batches[0].images.shape[-1]
        print(f"step {arguments.step}: {images} images of {size_px} px in {len(batches)} part(s)")
        normalise = build_normalise(config, dataset.class_names)
        tiles = islice(draw_step(batches, normalise, dataset.class_names), arguments.n)
        for path in write_sheets(tiles, arguments.output, columns=COLUMNS, per_sheet=PER_SHEET):
            print(path, flush=True)

    return exit_code(work)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Draw a training batch as the network gets it.", epilog=EXAMPLES)
    parser.add_config_options()
    parser.add_argument(
        "--step", type=int, default=0, metavar="N", help="the optimizer step, from 0 (0)"
    )
    parser.add_argument("-n", type=int, default=PER_SHEET, help=f"most images ({PER_SHEET})")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="for the sheets (predictions/batch-<date>-<time>)",
    )
    arguments = parser.parse(argv)
    if arguments.step < 0 or arguments.n < 1:
        parser.error("--step must be at least 0, and -n at least 1")
    arguments.output = pictures_folder(arguments.output, "batch-")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
