"""Score checkpoints: ``python validation.py logs/<name>/best.pt --conf 0.01 0.001``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from yolo.config.command_line import (
    PAGE_SUFFIXES,
    PICTURE_SUFFIXES,
    Parser,
    fraction,
    image_size,
    is_picture,
)
from yolo.config.read import exists, is_folder
from yolo.config.score_arguments import ScoreArguments
from yolo.errors import exit_code
from yolo.files import write_or_refuse

BESIDE = Path("analysis.html")
"""Stands for --analyse without a place."""

EXAMPLES = """examples:
  python validation.py
  python validation.py logs/first_try/best.pt --conf 0.01 0.001 0.0001 --json scores.json
  python validation.py logs/first_try/best.pt --split test --image-size 608 --gpu 0
  python validation.py logs/first_try/best.pt --metric both --curves curves.png
  python validation.py logs/first_try/best.pt logs/second_try/best.pt --curves compared.png
  python validation.py logs/first_try/best.pt --analyse
  python validation.py logs/first_try data.val.annotations=/b/val.json data.val.images=/b/images

Boxes in the files of --save-txt and --save-voc are in pixels of the original image as VOC counts
them: the first one is 1, and right and bottom are inside the box.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run each network once over the data and print its figures for each confidence.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    arguments = parse(argv)
    return exit_code(lambda: score(arguments))


def score(arguments: ScoreArguments) -> None:
    """What ``main`` does once the command line has proved right."""
    # torch takes seconds to import: only now
    from yolo.factory.scoring import score_checkpoints

    analyse = draw_curves = None
    if arguments.analyse:
        from yolo.apps.report.analysis import write_analysis

        analyse = partial(write_analysis, log=print, place=arguments.analysis_place)
    if arguments.curves is not None:
        from yolo.apps.report.plots import write_curves

        draw_curves = partial(write_curves, log=print, place=arguments.curves)
    report = score_checkpoints(arguments, log=print, analyse=analyse, draw_curves=draw_curves)
    if arguments.json is not None:
        # JSON has no NaN, which the loss of a network that diverged is
        finite = json.loads(json.dumps(report), parse_constant=lambda _: None)
        content = f"{json.dumps(finite, indent=2)}\n".encode()
        write_or_refuse("the json", arguments.json, content, remedy="name another --json")


def parse(argv: Sequence[str] | None = None) -> ScoreArguments:
    """Parses the command line; bad usage exits with 2."""
    parser = Parser("Score checkpoints of detectors or classifiers.", EXAMPLES)
    parser.takes_settings = True
    _add_options(parser)
    _add_files(parser)
    arguments = parser.parse(argv)
    _check_places(parser, arguments)
    for setting in filter(_is_setting, arguments.checkpoint):
        if not setting.startswith("data.") or setting.startswith("data.image_size="):
            parser.error(
                f"{setting}: behind the checkpoint stand only settings of the data, such as "
                "data.val.images=DIR; the options set the rest"
            )
    given = vars(arguments)
    page = given.pop("analyse")
    words = given.pop("checkpoint")
    given["checkpoints"] = tuple(Path(word) for word in words if not _is_setting(word))
    given["overrides"] = tuple(word for word in words if _is_setting(word))
    given["devices"] = given.pop("gpu")
    given["confs"] = tuple(given.pop("conf") or ()) or None
    given["image_size_px"] = given.pop("image_size")
    given["competition"] = given["competition"] or "comp4"
    place = None if page is BESIDE else page
    return ScoreArguments(analyse=page is not None, analysis_place=place, **given)


def _is_setting(word: str) -> bool:
    """Whether a word is `key=value`, and no path."""
    return re.match(r"[\w.]+=", word) is not None and not exists(word)


def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "checkpoint",
        nargs="*",
        help="one or several checkpoints, runs' folders or files of export.py (the newest run's "
        "best.pt); data.key=value names data that moved, or others, in YAML's form",
    )
    add("--conf", type=fraction, nargs="+", help="confidence thresholds (the training's)")
    add("--split", choices=("train", "val", "test"), default="val", help="which images (val)")
    add("--image-size", type=image_size, help="side of the network's input (the training's)")
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="number format of the network (the training's; an exported file has its own)",
    )
    add("--metric", choices=("coco", "voc", "both"), help="whose figures (the training's)")
    add(
        "--voc-iou",
        type=fraction,
        metavar="IOU",
        help="overlap at which the VOC metric and the curves take a box for a truth's "
        "(the training's)",
    )
    add(
        "--labels",
        choices=("all_classes", "best_class"),
        help="every class of a box that passes, or its best (the training's)",
    )
    add(
        "--nms",
        choices=("greedy", "soft"),
        help="overlapping boxes of a class are dropped, or lose score (the training's)",
    )
    add(
        "--tta",
        action="store_true",
        help="test-time augmentation: boxes of the images as they are, mirrored, and both a sixth "
        "smaller and larger, suppressed together; six times as slow",
    )
    add(
        "--choose-conf",
        action="store_true",
        help="put the confidence of each class's best F1 into the checkpoint, for --conf auto of "
        "prediction and demo; scores the best class of a box, as they do, unless --labels is given",
    )
    parser.add_gpu_option(one_for="scoring uses")
    add("--per-class", action="store_true", help="list the AP of each class too")
    parser.add_logs_option()


def _add_files(parser: Parser) -> None:
    add = parser.add_argument_group("what to write").add_argument
    add("--json", type=Path, metavar="FILE", help="the figures")
    add("--detections", type=Path, metavar="FILE", help="all boxes as COCO results")
    add(
        "--curves",
        type=Path,
        metavar="FILE_OR_DIR",
        help="precision over recall as a picture (.png, .jpg): of each class for one checkpoint, "
        "of the models side by side for several; and each model's own into the TensorBoard of its "
        "run",
    )
    add(
        "--analyse",
        type=Path,
        nargs="?",
        const=BESIDE,
        metavar="FILE_OR_DIR",
        help="one HTML page of what goes wrong: kinds of errors (TIDE), confusions, classes, "
        "sizes, calibration, the worst false positives and misses (analysis.html beside the "
        "checkpoint)",
    )
    add(
        "--save-txt",
        type=Path,
        metavar="DIR",
        help="a text file for each image, as Padilla's Object-Detection-Metrics reads them: 'class "
        "confidence left top right bottom' in DIR/detections, the same without confidence in "
        "DIR/groundtruths; blanks and slashes in class names become underscores, ignored regions "
        "are left out",
    )
    add(
        "--save-voc",
        type=Path,
        metavar="DIR",
        help="files for the VOC server, DIR/comp4_det_<set>_<class>.txt: <set> is the image set of "
        "VOC data, such as test, else the --split",
    )
    add(
        "--competition",
        choices=("comp3", "comp4"),
        help="of --save-voc: comp3 trained on VOC's images alone, comp4 (the default) on any",
    )


def _check_places(parser: Parser, given: argparse.Namespace) -> None:
    """Refuses what could not be written, before the network runs."""
    picture = given.curves if given.curves is not None and is_picture(given.curves) else None
    folder = given.curves if picture is None else None
    for file in (given.json, given.detections, picture):
        parser.check_file(file)
    if folder is not None and folder.suffix and not is_folder(folder):
        suffixes = ", ".join(PICTURE_SUFFIXES)
        parser.error(f"--curves {folder}: must be a folder or end in {suffixes}")
    if given.choose_conf and given.conf:
        parser.error("--choose-conf looks at all confidences: leave out --conf")
    checkpoints = sum(not _is_setting(word) for word in given.checkpoint)
    for place in (given.save_txt, given.save_voc, folder):
        parser.check_folder(place)
    for name in ("analyse", "detections", "save_txt", "save_voc"):
        if getattr(given, name) is not None and checkpoints > 1:
            option = "--" + name.replace("_", "-")
            parser.error(f"{option} writes the boxes of one checkpoint, name one")
    page = given.analyse
    is_page = page is None or page.suffix.lower() in PAGE_SUFFIXES or is_folder(page)
    if not is_page and (page.suffix or exists(page)):
        advice = "name the checkpoint before --analyse"
        parser.error(f"--analyse {page}: must be a folder or end in .html; {advice}")
    if given.competition is not None and given.save_voc is None:
        parser.error("--competition names the files of --save-voc: give --save-voc DIR too")


if __name__ == "__main__":
    sys.exit(main())
