"""Write a checkpoint as files for other programs: ``python export.py logs/<name>/best.pt``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from yolo.config.command_line import Parser, fraction, image_size
from yolo.errors import exit_code

EXAMPLES = """examples:
  python export.py --format onnx
  python export.py logs/first_try --format onnx --nms --dynamic-size --fp16
  python export.py logs/first_try/best.pt --format torchscript --output detector.torchscript
  python export.py logs/first_try/best.pt --format darknet --output weights/mine --thresh 0.01
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files and name them.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    arguments = parse(argv)
    return exit_code(lambda: export(arguments))


def export(arguments: argparse.Namespace) -> None:
    """What ``main`` does once the command line has proved right."""
    # torch takes seconds to import: only now
    from yolo.train.run_folder import find_checkpoint

    checkpoint = find_checkpoint(arguments.checkpoint, arguments.logs)
    for path in FORMATS[arguments.format](checkpoint, arguments):
        print(path)


def _darknet(checkpoint: Path, arguments: argparse.Namespace) -> list[Path]:
    from yolo.apps.export.darknet import export_darknet

    return export_darknet(
        checkpoint,
        stem=arguments.output,
        image_size_px=arguments.image_size,
        thresh=arguments.thresh,
    )


def _graph(checkpoint: Path, arguments: argparse.Namespace) -> list[Path]:
    from yolo.apps.export.exporting import export_model

    names = ("output", "dynamic_size", "nms", "float_input", "fp16", "images")
    names += ("conf", "iou", "labels")
    options = {name: getattr(arguments, name) for name in names}
    options["image_size_px"] = arguments.image_size
    options["log"] = partial(print, file=sys.stderr)  # standard output is for the files' names
    return [export_model(checkpoint, f".{arguments.format}", **options)]


FORMATS: dict[str, Callable[[Path, argparse.Namespace], list[Path]]] = {
    "darknet": _darknet,
    "onnx": _graph,
    "torchscript": _graph,
}
"""``--format`` -> what writes it; it returns the files."""

ONLY_FOR = {
    **dict.fromkeys(("dynamic_size", "float_input", "fp16", "images"), ("onnx", "torchscript")),
    **dict.fromkeys(("nms", "conf", "iou", "labels"), ("onnx",)),
    "thresh": ("darknet",),
}
"""Options that not every format has."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser("Write a checkpoint for other programs.", EXAMPLES)
    add = parser.add_argument
    what = "a checkpoint or a run's folder (the newest run's best.pt)"
    add("checkpoint", type=Path, nargs="?", help=what)
    add(
        "--format",
        choices=sorted(FORMATS),
        required=True,
        help="darknet: .cfg, .weights, .names; onnx and torchscript: a file that is refused unless "
        "it finds what PyTorch finds",
    )
    add(
        "--output",
        type=Path,
        metavar="PATH",
        help="the file; for darknet without its ending (the checkpoint's name beside it)",
    )
    add("--image-size", type=image_size, help="side of the network's input (the training's)")
    _add_graph_options(parser)
    add(
        "--thresh",
        type=fraction,
        help="darknet: scores up to it become 0 where OpenCV runs the cfg (YOLOv3: 0.2, YOLOv2: "
        "0.6)",
    )
    parser.add_logs_option()
    arguments = parser.parse(argv)
    for name, formats in ONLY_FOR.items():
        value = getattr(arguments, name)
        if value is not None and value is not False and arguments.format not in formats:
            option = "--" + name.replace("_", "-")
            parser.error(f"{option} is for --format {' or '.join(formats)} only")
    inside = (arguments.conf, arguments.iou, arguments.labels)
    if not arguments.nms and any(value is not None for value in inside):
        parser.error("--conf, --iou and --labels are for the suppression inside: give --nms too")
    output = arguments.output
    is_stem = output is not None and arguments.format == "darknet"
    parser.check_file(Path(f"{output}.cfg") if is_stem else output, "--output ")
    return arguments


def _add_graph_options(parser: Parser) -> None:
    """The options of ONNX and TorchScript."""
    add = parser.add_argument_group("onnx and torchscript").add_argument
    add(
        "--dynamic-size",
        action="store_true",
        help="take images of any height and width that are multiples of 32",
    )
    add("--fp16", action="store_true", help="convolutions and weights in float16")
    add("--float-input", action="store_true", help="images are float32, 0..255, instead of uint8")
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="images on which to compare with PyTorch (some that are drawn)",
    )
    add("--nms", action="store_true", help="onnx: put the non-maximum suppression inside")
    add(
        "--conf", type=fraction, help="onnx with --nms: lowest score that counts (the evaluation's)"
    )
    add("--iou", type=fraction, help="onnx with --nms: largest overlap (the evaluation's)")
    add(
        "--labels",
        choices=("all_classes", "best_class"),
        help="onnx with --nms: every class of a box that passes, or its best (the evaluation's)",
    )


if __name__ == "__main__":
    sys.exit(main())
