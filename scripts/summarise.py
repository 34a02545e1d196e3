"""Print a config's network, layer by layer: ``python scripts/summarise.py --config YAML``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config import ConfigError, load_config
from yolo.config.command_line import DEFAULT_CONFIG, Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print layers, shapes, parameters, work and memory; needs neither data nor weights."""
    parser = Parser(description="Print a config's network, layer by layer.")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="YAML")
    parser.add_argument("--classes", type=int, default=80, help="number of classes (80)")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse(argv)
    if arguments.classes < 1:
        parser.error(f"--classes {arguments.classes}: must be at least 1")
    try:
        config = load_config(arguments.config, arguments.overrides).config
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    from yolo.build.detector import build_detector
    from yolo.models.summary import summarise

    names = [str(label) for label in range(arguments.classes)]
    detector = build_detector(config, names, pretrained=False)
    print(summarise(detector, config.data.image_size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
