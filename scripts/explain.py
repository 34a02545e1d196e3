"""Show what a network looks at: ``python scripts/explain.py best.pt IMAGE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import Parser, device_name, image_size, pictures_folder
from yolo.errors import exit_code

EXAMPLES = """examples:
  python scripts/explain.py photo.jpg
  python scripts/explain.py logs/first_try photo.jpg --output maps
  python scripts/explain.py --list
  python scripts/explain.py photo.jpg --layer neck.stride8.0 encoder.stem

For each image and scale a PNG with the EigenCAM map over the image: what stands out in the
features, warm over cold, for all classes together.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write a picture for each image and layer and name it.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    arguments = parse(argv)
    return exit_code(lambda: explain(arguments))


def explain(arguments: argparse.Namespace) -> None:
    """What ``main`` does once the command line has proved right."""
    from yolo.apps.explain import eigencam, layers, scale_names, trained_network
    from yolo.apps.predict import Predictor
    from yolo.apps.report.drawing import save_image
    from yolo.data.images import decode
    from yolo.train.run_folder import find_checkpoint

    predictor = Predictor.from_checkpoint(
        find_checkpoint(arguments.checkpoint, arguments.logs),
        device=device_name(arguments.gpu),
        image_size_px=arguments.image_size,
        precision="fp32",
    )
    if arguments.list:
        print("\n".join(layers(trained_network(predictor).detector)))
        return
    chosen = arguments.layer or scale_names(predictor)
    for path in arguments.image:
        overlays = eigencam(predictor, decode(path), layer_names=arguments.layer)
        for name, overlay in zip(chosen, overlays, strict=True):
            target = arguments.output / f"{path.stem}_{name}.png"
            save_image(target, overlay)
            print(target, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Show what a network looks at, by EigenCAM.", epilog=EXAMPLES)
    what = "image files, and a checkpoint or a run's folder (the newest run's best.pt)"
    parser.add_argument("image", type=Path, nargs="*", help=what)
    parser.add_argument("--checkpoint", type=Path, help="the same, named as an option")
    parser.add_argument(
        "--layer",
        nargs="+",
        default=[],
        metavar="NAME",
        help="layers (what the neck hands to the head, at each scale)",
    )
    parser.add_argument("--list", action="store_true", help="name all layers and stop")
    parser.add_argument(
        "--image-size", type=image_size, help="side of the network's input (the training's)"
    )
    parser.add_gpu_option(one_for="explaining uses")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for pictures (predictions/<date>-<time>)"
    )
    parser.add_logs_option()
    arguments = parser.parse(argv)
    parser.take_checkpoint(arguments, "image")
    if not arguments.image and not arguments.list:
        parser.error("name an image, or --list for the layers")
    arguments.output = pictures_folder(arguments.output)
    if len({path.stem for path in arguments.image}) < len(arguments.image):
        parser.error("two of the images have one name, and so would their pictures")
    parser.check_folder(arguments.output)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
