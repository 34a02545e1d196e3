"""Find objects: ``python scripts/predict.py best.pt photos/ video.mp4``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config.command_line import (
    Parser,
    device_name,
    fraction,
    image_size,
    pictures_folder,
)
from yolo.errors import exit_code

EXAMPLES = """examples:
  python scripts/predict.py photo.jpg
  python scripts/predict.py photos/ 'more/**/*.png' --conf 0.4 --json found.json
  python scripts/predict.py logs/first_try video.mp4 --gpu 0
  python scripts/predict.py 0 --output predictions/camera
  python scripts/predict.py best.onnx rtsp://camera.local/live

Of a folder, images and videos are taken by their suffix, everything else is passed over. A camera
or a stream goes on until Ctrl-C; its frames that come while the network is busy are passed over.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Predict on everything that was named.

    Returns:
        0 done, broken images aside; 1 nothing could be read, or a failure that one sentence
        explains; 130 stopped by Ctrl-C, with all files whole; bad usage exits with 2.
    """
    arguments = parse(argv)
    return exit_code(lambda: predict(arguments))


def predict(arguments: argparse.Namespace) -> int:
    """What ``main`` does once the command line has proved right."""
    from yolo.apps.explain import eigencam
    from yolo.apps.predict import Predictor
    from yolo.apps.predict.results import JsonFile, Pictures, Results, TextFolder
    from yolo.apps.predict.run import predict_sources
    from yolo.apps.predict.sources import find_sources
    from yolo.train.run_folder import find_checkpoint

    sources, broken = find_sources(arguments.source)
    checkpoint = find_checkpoint(arguments.checkpoint, arguments.logs)
    predictor = Predictor.from_checkpoint(
        checkpoint,
        device=device_name(arguments.gpu),
        conf=arguments.conf,
        iou=arguments.iou,
        image_size_px=arguments.image_size,
        precision=arguments.precision,
        labels=arguments.labels,
        tta=arguments.tta,
    )
    print(f"{checkpoint}: {predictor.network.description}", flush=True)
    explain = partial(eigencam, predictor) if arguments.eigencam else None
    results: list[Results] = [
        Pictures(arguments.output, predictor.class_names, sources=sources, explain=explain),
    ]
    if arguments.json is not None:
        results.append(JsonFile(arguments.json, predictor, checkpoint))
    if arguments.save_txt is not None:
        results.append(TextFolder(arguments.save_txt))
    for sentence in broken:
        print(f"skipped: {sentence}", flush=True)
    tally = predict_sources(predictor, sources, results, log=partial(print, flush=True))
    tally.skipped += len(broken)
    print(tally.line())
    if tally.images == 0 and not tally.interrupted:
        print("error: nothing could be read", file=sys.stderr)
        return 1
    print(arguments.output)
    return 130 if tally.interrupted else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Find objects in images, videos and streams.", epilog=EXAMPLES)
    parser.add_argument(
        "source",
        nargs="+",
        help="an image, a folder, a pattern, a video, a camera's index, or a stream's address; and "
        "a checkpoint, a run's folder or a file of export.py (the newest run's best.pt)",
    )
    parser.add_argument("--checkpoint", type=Path, help="the same, named as an option")
    parser.add_argument(
        "--conf",
        type=lambda text: text if text == "auto" else fraction(text),
        help="lowest score that counts (0.25); auto: each class's of validation.py --choose-conf",
    )
    parser.add_argument(
        "--iou", type=fraction, help="overlap of boxes of which one stays (the training's)"
    )
    labels = ("best_class", "all_classes")
    parser.add_argument("--labels", choices=labels, help="classes of a box (best_class)")
    parser.add_argument(
        "--image-size", type=image_size, help="side of the network's input (the training's)"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="number format of the network; auto is the fastest, measured on a CPU",
    )
    tta = "test-time augmentation, as in validation.py; six times as slow"
    parser.add_argument("--tta", action="store_true", help=tta)
    parser.add_gpu_option(one_for="prediction uses")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for pictures (predictions/<date>-<time>)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all boxes, in COCO's form")
    parser.add_argument(
        "--save-txt",
        type=Path,
        metavar="DIR",
        help="write a text file for each image, as validation.py does",
    )
    parser.add_argument(
        "--eigencam", action="store_true", help="put what the network looks at beside each picture"
    )
    parser.add_logs_option()
    return checked(parser, parser.parse(argv))


def checked(parser: Parser, arguments: argparse.Namespace) -> argparse.Namespace:
    """What cannot be done is refused before the network is loaded."""
    parser.take_checkpoint(arguments, "source")
    if not arguments.source:
        parser.error(f"{arguments.checkpoint}: name images or videos beside the checkpoint")
    parser.check_file(arguments.json)
    arguments.output = pictures_folder(arguments.output)
    for folder in (arguments.output, arguments.save_txt):
        parser.check_folder(folder)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
