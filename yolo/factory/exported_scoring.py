"""An exported file in the place of a checkpoint: the same data, the same metrics."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolo.config.validation_line import ScoreArguments
from yolo.errors import UserError
from yolo.evaluate.exported_metadata import ExportMetadata
from yolo.evaluate.exported_runner import ExportedModel
from yolo.records import Detections

ABSENT = -1.0
"""The score of a class that a detection is not of; it passes no threshold."""


def read_exported(path: Path, arguments: ScoreArguments) -> dict[str, Any]:
    """What scoring reads of a checkpoint, from an exported file.

    The config is the training's, with the input size and the thresholds of the file.

    Raises:
        UserError: the file cannot be opened, or cannot do what was asked for.
    """
    model = ExportedModel.open(path)
    metadata = model.metadata
    _check_asked(path, metadata, arguments)
    return {
        "config": _config(metadata),
        "class_names": list(metadata.class_names),
        "category_ids": list(metadata.category_ids),
        "precision": {"name": "fp32", "reason": "the file has its own"},
        "progress": {"step": metadata.step},
        "exported": model,
    }


def _config(metadata: ExportMetadata) -> dict[str, Any]:
    config = copy.deepcopy(metadata.config)
    config["data"]["image_size"] = metadata.image_size_px
    config["evaluation"] |= {"conf": metadata.conf, "iou": metadata.iou}
    return config


def _check_asked(path: Path, metadata: ExportMetadata, arguments: ScoreArguments) -> None:
    if metadata.nms and arguments.confs is not None and min(arguments.confs) < metadata.conf:
        raise UserError(
            f"{path}: the suppression inside drops scores below {metadata.conf:g}, so there is no "
            f"--conf {min(arguments.confs):g}; export with a lower --conf, or without --nms"
        )
    if arguments.precision is not None:
        raise UserError(
            f"{path}: was exported in {metadata.precision} and computes in nothing else; leave out "
            "--precision"
        )
    size_px = arguments.image_size_px
    if size_px not in (None, metadata.image_size_px) and not metadata.dynamic_size:
        raise UserError(
            f"{path}: takes images of {metadata.image_size_px} px alone, not of --image-size "
            f"{size_px}; export with --dynamic-size"
        )


class ExportedDetector(nn.Module):
    """An exported file as the evaluator's network: its output is decoded already.

    Args:
        model: with or without the suppression inside. With it, the evaluator's own finds nothing
            left to suppress.
        device: that the output is wanted on.
    """

    def __init__(self, model: ExportedModel, device: torch.device) -> None:
        super().__init__()
        self._model, self._device = model, device

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> boxes (B, N, 4) and scores (B, N, K)."""
        metadata = self._model.metadata
        if metadata.nms:
            boxes, scores = _as_decoded(self._model.detect(images), len(metadata.class_names))
        else:
            boxes, scores = self._model(images)
        return boxes.to(self._device), scores.to(self._device)


class Decoded(nn.Module):
    """The coder of a network that decodes by itself."""

    def forward(self, decoded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes and scores as they are."""
        return decoded


def exported_model(checkpoint: Mapping[str, Any]) -> ExportedModel | None:
    """The file behind what ``read_exported`` made; None for a checkpoint."""
    return checkpoint.get("exported")


def _as_decoded(found: list[Detections], classes: int) -> tuple[Tensor, Tensor]:
    """Detections as boxes (B, N, 4) and scores (B, N, K), ``ABSENT`` but for the own class."""
    most = max(map(len, found))
    boxes = torch.zeros(len(found), most, 4)
    scores = torch.full((len(found), most, classes), ABSENT)
    for i, one in enumerate(found):
        boxes[i, : len(one)] = one.boxes_xyxy_px
        scores[i, torch.arange(len(one)), one.labels] = one.scores
    return boxes, scores
