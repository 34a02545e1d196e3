"""Overfit a few training images: ``python scripts/overfit_batch.py --config YAML``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import Parser, load_detector_config
from yolo.errors import exit_code

if TYPE_CHECKING:
    from yolo.apps.preflight.overfit import Overfit

IMAGES, STEPS = 8, 1500

EPILOG = """examples:
  python scripts/overfit_batch.py
  python scripts/overfit_batch.py --config configs/yolov3/darknet53_coco.yaml --gpu 0
  python scripts/overfit_batch.py -n 4 --steps 500 training.optimizer.learning_rate=1e-3

The training's own loop runs on the first N training images that have a box, all of them in each
step, without augmentation, mosaic, mixup, multi-scale or averaging of weights, and is judged on
the same images every 25 steps. The optimizer is the config's; its learning rate is constant after
20 steps of warm-up, so that the config's own schedule, made for a long training, does not matter.
Adam at 1e-4 learns 8 COCO images from scratch in 625 steps at 256 px, at 1e-3 in 125.
It ends at mAP@0.5 0.99, or within 0.01 of what the truth itself gives when it is encoded into the
network's maps and decoded again. The run lies in logs/overfit/.

A network that cannot learn 8 images will not learn 80,000: labels, anchors, loss or the learning
rate are at fault.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Overfit and print how it went.

    Returns:
        0 learnt, 1 not learnt or any other failure, 128 + signal when stopped; bad usage or a bad
        config exits with 2.
    """
    arguments = parse(argv)
    resolved = load_detector_config(arguments.config, arguments.overrides)
    from yolo.apps.preflight.overfit import overfit
    from yolo.train.distributed import one_process
    from yolo.train.interruption import Interrupted

    def work() -> int:
        ranks = one_process(arguments.gpu)
        result = overfit(resolved, ranks, images=arguments.n, steps=arguments.steps, log=print)
        print(describe(result, arguments))
        return 0 if result.is_reached else 1

    try:
        return exit_code(work)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code


def describe(result: Overfit, arguments: argparse.Namespace) -> str:
    """The outcome in a sentence or two."""
    figure, bound = f"mAP@0.5 {result.figure:.4f}", result.bound
    if result.is_reached:
        return (
            f"learnt: {figure} at step {result.step}, {result.minutes:.1f} minutes; encoding and "
            f"decoding the truth gives {bound:.4f}"
        )
    return (
        f"NOT learnt: {figure} at best (step {result.step}) in {arguments.steps} steps, "
        f"{result.minutes:.1f} minutes, where encoding and decoding the truth gives {bound:.4f}.\n"
        "If the loss was still falling, give it more --steps or another "
        "training.optimizer.learning_rate; else look at the labels (scripts/visualize_dataset.py), "
        f"at the anchors (scripts/fit_anchors.py) and at the pictures in {result.folder}/pictures."
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Overfit a few training images.", epilog=EPILOG)
    parser.add_config_options()
    parser.add_argument("-n", type=int, default=IMAGES, help=f"images ({IMAGES})")
    parser.add_argument(
        "--steps", type=int, default=STEPS, metavar="LIMIT", help=f"most optimizer steps ({STEPS})"
    )
    parser.add_gpu_option(one_for="a few images need")
    arguments = parser.parse(argv)
    if arguments.n < 1 or arguments.steps < 1:
        parser.error("-n and --steps must be at least 1")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
