"""Fit anchors to a config's training boxes: ``python scripts/fit_anchors.py --config YAML``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config import Config
from yolo.config.command_line import Parser, load_config_or_exit
from yolo.errors import exit_code

DESCRIPTION = """Compare a config's anchors with those that k-means finds on its training boxes.

Boxes are measured as in training: letterboxed at data.image_size, ignored ones left out."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print how current and fitted anchors fit, draw the elbow, print YAML to paste.

    Returns:
        0 done, 1 a failure that one sentence explains, 2 the config is at fault; bad usage exits
        with 2.
    """
    parser = Parser(description=DESCRIPTION)
    parser.add_config_options()
    parser.add_argument("--k-from", type=int, default=1, help="first number in the picture (1)")
    parser.add_argument("--k-to", type=int, default=15, help="last number in the picture (15)")
    parser.add_picture_option("anchors.png", "the elbow over the number of anchors: ")
    arguments = parser.parse(argv)
    if not 1 <= arguments.k_from <= arguments.k_to:
        parser.error("--k-from and --k-to: must be at least 1 and in this order")
    config = load_config_or_exit(arguments.config, arguments.overrides).config
    if not isinstance(config, Config) or config.model.head.type == "yolov1":
        parser.error(f"--config {arguments.config}: its model has no anchors")
    from yolo.apps.preflight.anchors import AnchorComparison
    from yolo.apps.report.drawing import save_image
    from yolo.factory.data import build_dataset

    def work() -> None:
        comparison = AnchorComparison(config, build_dataset(config, "train"))
        print(*comparison.lines(), sep="\n")
        counts = range(arguments.k_from, arguments.k_to + 1)
        save_image(arguments.output, comparison.draw_elbow(counts))
        print(f"\nelbow: {arguments.output}\n\nto paste:\n{comparison.yaml()}")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
