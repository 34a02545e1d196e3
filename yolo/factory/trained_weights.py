"""A checkpoint's config, and its weights in the model that this describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from yolo.config import Config, ConfigError, TaskConfig, config_from_dict
from yolo.errors import UserError
from yolo.factory.detector import build_detector
from yolo.models.detector import Detector
from yolo.models.weights import evaluated_tensors

Model = TypeVar("Model", bound=nn.Module)


def load_trained(model: Model, path: Path, checkpoint: Mapping[str, Any]) -> Model:
    """Fill a model as it was scored: averaged weights, if there are any, with trained statistics.

    Raises:
        UserError: the weights do not fit; ``path`` names the checkpoint.
    """
    try:
        model.load_state_dict(evaluated_tensors(checkpoint))
    except RuntimeError as error:
        raise UserError(
            f"{path}: its weights do not fit the model that its config describes; "
            "it was written by another version of this code"
        ) from error
    return model.eval()


def load_detector(path: Path, checkpoint: Mapping[str, Any], config: Config) -> Detector:
    """The checkpoint's detector."""
    return load_trained(build_detector(config, checkpoint["class_names"]), path, checkpoint)


def read_config(path: Path, checkpoint: Mapping[str, Any]) -> TaskConfig:
    """The config that a checkpoint was trained with.

    Raises:
        UserError: it is of another version.
    """
    try:
        return config_from_dict(checkpoint["config"])
    except ConfigError as error:
        raise UserError(
            f"{path}: its config is not one that this version of the code knows: {error}"
        ) from error
