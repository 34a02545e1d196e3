"""Draw learning rates over their steps: ``python scripts/plot_lr_schedule.py CONFIG...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import Parser, load_config_or_exit
from yolo.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one or several configs into one picture; needs neither data nor weights.

    Returns:
        0 done, 1 a failure that one sentence explains, 2 a config is at fault; bad usage exits
        with 2.
    """
    parser = Parser(description="Draw the learning rate of one or several configs.")
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG", help="YAML files")
    parser.add_picture_option("lr_schedule.png")
    parser.add_argument("--log", action="store_true", help="a logarithmic scale of the rates")
    arguments = parser.parse(argv)
    configs = {str(path): load_config_or_exit(path).config for path in arguments.configs}
    from yolo.apps.report.drawing import save_image
    from yolo.apps.report.plots import draw_curves
    from yolo.apps.report.preview import learning_rate_curves

    def work() -> None:
        picture = draw_curves(
            [
                curve
                for name, config in configs.items()
                for curve in learning_rate_curves(name, config)
            ],
            title="Learning rate",
            x="optimizer step",
            y="learning rate",
            y_scale="log" if arguments.log else "linear",
        )
        save_image(arguments.output, picture)
        print(arguments.output)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
