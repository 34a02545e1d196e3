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
from yolo.export.card import ExportCard
from yolo.export.runner import ExportedModel
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
    card = model.card
    _check_asked(path, card, arguments)
    return {
        "config": _config(card),
        "class_names": list(card.class_names),
        "category_ids": list(card.category_ids),
        "precision": {"name": "fp32", "reason": "the file has its own"},
        "progress": {"step": card.step},
        "exported": model,
    }


def _config(card: ExportCard) -> dict[str, Any]:
    config = copy.deepcopy(card.config)
    config["data"]["image_size"] = card.image_size_px
    config["evaluation"] |= {"conf": card.conf, "iou": card.iou}
    return config


def _check_asked(path: Path, card: ExportCard, arguments: ScoreArguments) -> None:
    if card.nms and arguments.confs is not None and min(arguments.confs) < card.conf:
        raise UserError(
            f"{path}: the suppression inside drops scores below {card.conf:g}, so there is no "
            f"--conf {min(arguments.confs):g}; export with a lower --conf, or without --nms"
        )
    if arguments.precision is not None:
        raise UserError(
            f"{path}: was exported in {card.precision} and computes in nothing else; leave out "
            "--precision"
        )
    size_px = arguments.image_size_px
    if size_px not in (None, card.image_size_px) and not card.dynamic_size:
        raise UserError(
            f"{path}: takes images of {card.image_size_px} px alone, not of --image-size "
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
        card = self._model.card
        if card.nms:
            boxes, scores = _as_decoded(self._model.detect(images), len(card.class_names))
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
