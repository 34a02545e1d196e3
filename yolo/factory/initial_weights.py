"""The weights that a training starts from, and the input that they were trained with."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from yolo.config.schema.classification import ClassifierConfig
from yolo.config.schema.encoders import Encoder as EncoderConfig
from yolo.config.schema.model import InitConfig, ModelConfig
from yolo.darknet.weights import is_weights_file
from yolo.errors import UserError
from yolo.factory.darknet import load_darknet_detector, load_darknet_encoder
from yolo.factory.data import naming
from yolo.models.detector import Detector
from yolo.models.encoders import Encoder
from yolo.models.layers import IMAGENET, UNIT_RANGE, Normalise, Preprocessing
from yolo.models.weights import (
    LoadReport,
    evaluated_tensors,
    fill_encoder,
    fill_matching,
    imagenet_tensors,
    read_tensors,
    report_filled,
    stored_preprocessing,
    tensors_by_layer,
)
from yolo.train.checkpoint import load_checkpoint

MOST_NAMED = 5
"""Layers that an error names; the rest is counted."""

Loaded = tuple[LoadReport, Preprocessing | None]
"""What was filled, and the input that the file's weights expect; None where it does not know."""


def load_initial_weights(
    model: nn.Module, config: ModelConfig | ClassifierConfig
) -> list[LoadReport]:
    """Fill a new model with the weights that its config names: the encoder's first, then all.

    The weights decide what the input is normalised with, unless the config does: the last file
    that filled any of the encoder and knows it.

    Returns:
        A report for each file.

    Raises:
        UserError: a file cannot be had or read, or does not fit.
    """
    encoder, normalise = model.encoder, model.normalise
    assert isinstance(encoder, Encoder) and isinstance(normalise, Normalise)
    loaded: list[Loaded] = []
    if config.encoder.weights is not None:
        loaded.append(_load_encoder(encoder, config.encoder))
    if config.init is not None:
        loaded.append(_load_all(model, config.init))
    for _, preprocessing in loaded:
        if config.preprocessing is None and preprocessing is not None:
            normalise.adopt(preprocessing)
    return [report for report, _ in loaded]


def _load_encoder(encoder: Encoder, config: EncoderConfig) -> Loaded:
    """Fill the whole encoder; a file that lacks some of it is an error."""
    weights = config.weights
    assert weights is not None
    if weights == "imagenet":
        source = f"torchvision's ImageNet weights of {config.type}"
        with naming("model.encoder.weights"):
            fill_encoder(encoder, imagenet_tensors(config.type), source=source)
        return report_filled(encoder, source, tensors_by_layer(encoder)), IMAGENET
    path = Path(weights)
    _check_exists(path, "model.encoder.weights")
    if is_weights_file(path):
        return load_darknet_encoder(encoder, path), UNIT_RANGE
    with naming("model.encoder.weights"):
        tensors = read_tensors(path)
        fill_encoder(encoder, tensors, source=str(path))
    report = report_filled(encoder, f"{path}, its encoder", tensors_by_layer(encoder))
    return report, stored_preprocessing(tensors)


def _load_all(model: nn.Module, config: InitConfig) -> Loaded:
    """Fill what fits, at least the share that the config asks for."""
    path = config.weights
    _check_exists(path, "model.init.weights")
    preprocessing: Preprocessing | None = UNIT_RANGE
    if not is_weights_file(path):
        with naming("model.init.weights"):
            tensors = evaluated_tensors(load_checkpoint(path))
        report = report_filled(model, str(path), fill_matching(model, tensors))
        preprocessing = stored_preprocessing(tensors)
    elif isinstance(model, Detector):
        report = load_darknet_detector(model, path)
    else:
        raise UserError(
            f"{path}: model.init.weights of a classifier must be a checkpoint of this project; "
            "name a file of Darknet's as model.encoder.weights"
        )
    if report.share < config.min_matched:
        more = len(report.left) - MOST_NAMED
        layers = ", ".join(report.left[:MOST_NAMED])
        layers += f" and {more:,} more layers" if more > 0 else ""
        raise UserError(
            f"{path}: fits {report.parameters_filled:,} of the model's {report.parameters:,} "
            f"parameters ({report.share:.1%}), and model.init.min_matched asks for "
            f"{config.min_matched:.1%}; what did not fit: {layers}; start from a model with the "
            "same encoder and neck, or lower min_matched"
        )
    encoder_too = any(name.startswith("encoder.") for name in report.filled)
    return report, preprocessing if encoder_too else None


def _check_exists(path: Path, setting: str) -> None:
    if not path.is_file():
        raise UserError(
            f"{path}: no such weights file; check {setting} "
            "(scripts/download_weights.py fetches Darknet's)"
        )
