"""The metadata of an exported file: names, sizes, thresholds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError

VERSION = 1
PREFIX = "yolo."
"""Of every entry, so that they cannot be taken for those of the program that wrote the graph."""

METADATA_FILE = "card.json"
"""The metadata's place among the extra files of a TorchScript file."""


@dataclass(frozen=True, kw_only=True)
class ExportMetadata:
    """The metadata that travels in an exported file.

    Attributes:
        class_names: by label.
        category_ids: label -> category id of the data set.
        image_size_px: side of the network's input.
        fill_colour_rgb: of the letterbox.
        conf, iou, max_detections, max_candidates, labels: of the suppression, see ``Postprocess``.
            With ``nms`` they are part of the graph, otherwise they are what training scored with.
        generation: the head's type.
        config: the whole config of the training, plain data.
        step: of the checkpoint.
        precision: of the convolutions.
        dynamic_size: whether any height and width that are multiples of 32 will do.
        nms: whether the suppression is inside.
        float_input: whether images are float32, 0..255, and not uint8.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_size_px: int
    fill_colour_rgb: tuple[int, ...]
    conf: float
    iou: float
    max_detections: int
    max_candidates: int
    labels: Literal["best_class", "all_classes"]
    generation: str
    config: dict[str, Any]
    step: int
    precision: Literal["fp32", "fp16"]
    dynamic_size: bool
    nms: bool
    float_input: bool = False

    def postprocess(self) -> Postprocess:
        return Postprocess(
            conf=self.conf,
            iou=self.iou,
            max_detections=self.max_detections,
            max_candidates=self.max_candidates,
            labels=self.labels,
        )

    def to_metadata(self) -> dict[str, str]:
        """One entry for each attribute, its value as JSON."""
        content = {"version": VERSION, **asdict(self)}
        return {PREFIX + name: json.dumps(value) for name, value in content.items()}

    @classmethod
    def from_metadata(cls, entries: Mapping[str, str], *, owner: str) -> ExportMetadata:
        """The metadata of a file.

        Args:
            entries: its entries; others than ours are passed over.
            owner: the file, for errors.

        Raises:
            UserError: it is not one of ours, or of a version that this code does not know.
        """
        if PREFIX + "version" not in entries:
            raise UserError(
                f"{owner}: not a file that export.py wrote: its metadata has no classes and sizes"
            )
        try:
            content = {
                field.name: json.loads(entries[PREFIX + field.name]) for field in fields(cls)
            }
            version = json.loads(entries[PREFIX + "version"])
        except (KeyError, ValueError) as error:
            raise UserError(f"{owner}: its metadata is damaged ({error})") from error
        if version != VERSION:
            raise UserError(f"{owner}: export version {version}; this code reads {VERSION}")
        lists = ("class_names", "category_ids", "fill_colour_rgb")
        return cls(**content | {name: tuple(content[name]) for name in lists})
