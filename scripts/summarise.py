"""Print a config's network, layer by layer: ``python scripts/summarise.py --config YAML``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import Parser, load_config_or_exit
from yolo.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Print layers, shapes, parameters, work and memory; needs neither data nor weights."""
    parser = Parser(description="Print a config's network, layer by layer.")
    parser.add_config_options()
    parser.add_argument("--classes", type=int, default=80, help="number of classes (80)")
    arguments = parser.parse(argv)
    if arguments.classes < 1:
        parser.error(f"--classes {arguments.classes}: must be at least 1")
    config = load_config_or_exit(arguments.config, arguments.overrides).config
    from yolo.factory.detector import build_classifier, build_detector
    from yolo.factory.learner import build_freeze
    from yolo.models.summary import summarise

    names = [str(label) for label in range(arguments.classes)]
    build = {"detect": build_detector, "classify": build_classifier}[config.task]

    def work() -> None:
        model = build(config, names)
        freeze = build_freeze(config, model)
        if freeze is not None:
            freeze.apply(0)
        print(summarise(model, config.data.image_size))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
