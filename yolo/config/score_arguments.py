"""What validation.py is asked for. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yolo.config.command_line import PICTURE_SUFFIXES, Devices

DETECTOR_OPTIONS = {
    "--conf": "confs",
    "--image-size": "image_size_px",
    "--precision": "precision",
    "--metric": "metric",
    "--voc-iou": "voc_iou",
    "--per-class": "per_class",
    "--detections": "detections",
    "--curves": "curves",
    "--analyse": "analyse",
    "--save-txt": "save_txt",
    "--save-voc": "save_voc",
}
"""What means something to a detector alone, by the attribute of ``ScoreArguments``."""


@dataclass(frozen=True, kw_only=True)
class ScoreArguments:
    """The command line; None is the checkpoint's own, or "no".

    Attributes:
        checkpoints: to be scored one after the other; none is the newest run's best.pt.
        analyse: whether to write the page of errors.
        analysis_place: its file or folder; None is beside the checkpoint.
        competition: in the names of the files in `save_voc`.
    """

    checkpoints: tuple[Path, ...]
    logs: Path
    devices: Devices
    split: Literal["train", "val", "test"]
    confs: tuple[float, ...] | None
    image_size_px: int | None
    precision: Literal["fp32", "bf16", "fp16"] | None
    metric: Literal["coco", "voc", "both"] | None
    voc_iou: float | None
    per_class: bool
    json: Path | None
    detections: Path | None
    curves: Path | None
    analyse: bool
    analysis_place: Path | None
    save_txt: Path | None
    save_voc: Path | None
    competition: Literal["comp3", "comp4"]

    def detector_options(self) -> list[str]:
        """The given options that mean something to a detector alone."""
        return [
            option
            for option, name in DETECTOR_OPTIONS.items()
            if getattr(self, name) not in (None, False)
        ]


def is_picture(path: Path) -> bool:
    """Whether the path of --curves names a picture, not a folder."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()
