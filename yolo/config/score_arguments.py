"""What the command line of validation.py says. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yolo.config.command_line import Devices


@dataclass(frozen=True, kw_only=True)
class ScoreArguments:
    """The command line of validation.py; None is the checkpoint's own, or "no"."""

    checkpoints: tuple[Path, ...]  # scored one after the other; none is the newest run's best.pt
    overrides: tuple[str, ...]  # `data.key=value` each: where the data lie, or others
    logs: Path
    devices: Devices
    split: Literal["train", "val", "test"]
    confs: tuple[float, ...] | None
    image_size_px: int | None
    precision: Literal["fp32", "bf16", "fp16"] | None
    metric: Literal["coco", "voc", "both"] | None
    voc_iou: float | None
    labels: Literal["all_classes", "best_class"] | None
    nms: Literal["greedy", "soft"] | None
    tta: bool
    choose_conf: bool
    per_class: bool
    json: Path | None
    detections: Path | None
    curves: Path | None
    analyse: bool
    analysis_place: Path | None  # the page's file or folder; None is beside the checkpoint
    save_txt: Path | None
    save_voc: Path | None
    competition: Literal["comp3", "comp4"]  # in the names of the files in `save_voc`

    def detector_options(self) -> list[str]:
        """The given options that mean something only to a detector."""
        others = {"checkpoints", "overrides", "logs", "devices", "split", "json"}
        others |= {"analysis_place", "competition"}  # they go with --analyse and --save-voc
        renamed = {"confs": "conf", "image_size_px": "image_size"}
        return [
            "--" + renamed.get(name, name).replace("_", "-")
            for name, value in vars(self).items()
            if name not in others and value is not None and value is not False
        ]
