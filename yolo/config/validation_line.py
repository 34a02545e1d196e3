"""The command line of validation.py. Imports no torch."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yolo.config.command_line import Devices, Parser, add_gpu_option, fraction, image_size
from yolo.config.loading import REPOSITORY_ROOT

Split = Literal["train", "val", "test"]
MetricChoice = Literal["coco", "voc", "both"]
Competition = Literal["comp3", "comp4"]
PrecisionChoice = Literal["fp32", "bf16", "fp16"]

PAGE_SUFFIXES = (".html", ".htm")
BESIDE = Path("analysis.html")
"""Stands for --analyse without a place."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

EXAMPLES = """examples:
  python validation.py
  python validation.py logs/first_try/best.pt --conf 0.01 0.001 0.0001 --json scores.json
  python validation.py logs/first_try/best.pt --split test --image-size 608 --gpu 0
  python validation.py logs/first_try/best.pt --metric both --curves curves.png
  python validation.py logs/first_try/best.pt logs/second_try/best.pt --curves compared.png
  python validation.py logs/first_try/best.pt --analyse

Boxes in the files of --save-txt and --save-voc are in pixels of the original image as VOC counts
them: the first one is 1, and right and bottom are inside the box.
"""


@dataclass(frozen=True, kw_only=True)
class ScoreArguments:
    """What validation.py was asked for; None is the checkpoint's own, or "no".

    Attributes:
        checkpoints: to be scored one after the other; none is the newest run's best.pt.
        logs: where the runs lie.
        devices: a name for `torch.device`, or "auto".
        split: of the checkpoint's own data.
        confs: confidence thresholds.
        image_size_px: side of the network's input.
        precision: number format of the network.
        metric: whose figures.
        voc_iou: from which on the VOC metric and the curves take a box for a truth's.
        per_class: list each class too.
        json, detections: files to write.
        curves: a picture to write, or a folder for it.
        analyse: write the page of errors.
        analysis_place: its file or folder; None is beside the checkpoint.
        save_txt, save_voc: folders to write to.
        competition: in the names of the files in `save_voc`.
    """

    checkpoints: tuple[Path, ...]
    logs: Path
    devices: Devices
    split: Split
    confs: tuple[float, ...] | None
    image_size_px: int | None
    precision: PrecisionChoice | None
    metric: MetricChoice | None
    voc_iou: float | None
    per_class: bool
    json: Path | None
    detections: Path | None
    curves: Path | None
    analyse: bool
    analysis_place: Path | None
    save_txt: Path | None
    save_voc: Path | None
    competition: Competition

    def detector_options(self) -> list[str]:
        """The given options that mean something to a detector alone."""
        given = {
            "--conf": self.confs is not None,
            "--image-size": self.image_size_px is not None,
            "--precision": self.precision is not None,
            "--metric": self.metric is not None,
            "--voc-iou": self.voc_iou is not None,
            "--per-class": self.per_class,
            "--detections": self.detections is not None,
            "--curves": self.curves is not None,
            "--analyse": self.analyse,
            "--save-txt": self.save_txt is not None,
            "--save-voc": self.save_voc is not None,
        }
        return [option for option, is_given in given.items() if is_given]


def parse_score_arguments(argv: Sequence[str] | None = None) -> ScoreArguments:
    """Parses the command line; argv is the process' own unless given.

    Raises:
        SystemExit: 2 after one sentence on bad usage, 0 after --help.
    """
    parser = _parser()
    given = parser.parse(argv)
    if given.gpu != "auto" and len(given.gpu) > 1:
        parser.error("--gpu: scoring uses one device, name one")
    _check_places(parser, given)
    return ScoreArguments(
        checkpoints=tuple(given.checkpoint),
        logs=given.logs,
        devices=given.gpu,
        split=given.split,
        confs=None if given.conf is None else tuple(given.conf),
        image_size_px=given.image_size,
        precision=given.precision,
        metric=given.metric,
        voc_iou=given.voc_iou,
        per_class=given.per_class,
        json=given.json,
        detections=given.detections,
        curves=given.curves,
        analyse=given.analyse is not None,
        analysis_place=None if given.analyse is BESIDE else given.analyse,
        save_txt=given.save_txt,
        save_voc=given.save_voc,
        competition=given.competition or "comp4",
    )


def _parser() -> Parser:
    parser = Parser(description="Score checkpoints of detectors or classifiers.", epilog=EXAMPLES)
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="*",
        help="one or several checkpoints or files of export.py (the newest run's best.pt)",
    )
    parser.add_argument(
        "--conf", type=fraction, nargs="+", help="confidence thresholds (the training's)"
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="val", help="which images (val)"
    )
    parser.add_argument(
        "--image-size", type=image_size, help="side of the network's input (the training's)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="number format of the network (the training's; an exported file has its own)",
    )
    parser.add_argument(
        "--metric", choices=("coco", "voc", "both"), help="whose figures (the training's)"
    )
    parser.add_argument(
        "--voc-iou",
        type=fraction,
        metavar="IOU",
        help="overlap at which the VOC metric and the curves take a box for a truth's "
        "(the training's)",
    )
    add_gpu_option(parser)
    parser.add_argument("--per-class", action="store_true", help="list the AP of each class too")
    parser.add_argument(
        "--logs", type=Path, default=REPOSITORY_ROOT / "logs", help="where the runs lie (logs)"
    )
    _add_files(parser)
    return parser


def _add_files(parser: Parser) -> None:
    """The options that write something."""
    group = parser.add_argument_group("what to write")
    group.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    group.add_argument("--detections", type=Path, metavar="FILE", help="all boxes as COCO results")
    group.add_argument(
        "--curves",
        type=Path,
        metavar="FILE_OR_DIR",
        help="precision over recall as a picture (.png, .jpg): of each class for one checkpoint, "
        "of the models side by side for several; and each model's own into the TensorBoard of its "
        "run",
    )
    group.add_argument(
        "--analyse",
        type=Path,
        nargs="?",
        const=BESIDE,
        metavar="FILE_OR_DIR",
        help="one HTML page of what goes wrong: kinds of errors (TIDE), confusions, classes, "
        "sizes, calibration, the worst false positives and misses (analysis.html beside the "
        "checkpoint)",
    )
    group.add_argument(
        "--save-txt",
        type=Path,
        metavar="DIR",
        help="a text file for each image, as Padilla's Object-Detection-Metrics reads them: 'class "
        "confidence left top right bottom' in DIR/detections, the same without confidence in "
        "DIR/groundtruths; blanks and slashes in class names become underscores, ignored regions "
        "are left out",
    )
    group.add_argument(
        "--save-voc",
        type=Path,
        metavar="DIR",
        help="files for the VOC server, DIR/comp4_det_<set>_<class>.txt: <set> is the image set of "
        "VOC data, such as test, else the --split",
    )
    group.add_argument(
        "--competition",
        choices=("comp3", "comp4"),
        help="of --save-voc: comp3 trained on VOC's images alone, comp4 (the default) on any",
    )


def _check_places(parser: Parser, given: argparse.Namespace) -> None:
    """What cannot be written has to be told before the network runs."""
    picture = given.curves if given.curves is not None and is_picture(given.curves) else None
    for path in (given.json, given.detections, picture):
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}; make it first")
    if given.curves is not None and picture is None and given.curves.suffix:
        suffixes = ", ".join(PICTURE_SUFFIXES)
        if not given.curves.is_dir():
            parser.error(f"--curves {given.curves}: must be a folder or end in {suffixes}")
    folders = (given.save_txt, given.save_voc, None if picture else given.curves)
    for folder in folders:
        if folder is not None and folder.exists() and not folder.is_dir():
            parser.error(f"{folder}: must be a folder, but is a file")
    one = {
        "--analyse": given.analyse,
        "--detections": given.detections,
        "--save-txt": given.save_txt,
        "--save-voc": given.save_voc,
    }
    for option, path in one.items():
        if path is not None and len(given.checkpoint) > 1:
            parser.error(f"{option} writes the boxes of one checkpoint, name one")
    page = given.analyse
    is_page = page is None or page.suffix.lower() in PAGE_SUFFIXES
    is_folder = page is not None and (page.is_dir() or not (page.suffix or page.exists()))
    if not (is_page or is_folder):
        parser.error(
            f"--analyse {page}: must be a folder or end in .html; name the checkpoint before "
            "--analyse"
        )
    if given.competition is not None and given.save_voc is None:
        parser.error("--competition names the files of --save-voc: give --save-voc DIR too")


def is_picture(path: Path) -> bool:
    """Whether the path of --curves names a picture, not a folder."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()
