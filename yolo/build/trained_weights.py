"""The weights of a checkpoint in the model that its config describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from yolo.errors import UserError
from yolo.models.encoders.weights import evaluated_tensors

Model = TypeVar("Model", bound=nn.Module)


def load_trained(model: Model, path: Path, checkpoint: Mapping[str, Any]) -> Model:
    """The model as it was scored: averaged weights, if there are any, with trained statistics.

    Args:
        model: as the checkpoint's config describes it; is filled.
        path: of the checkpoint, for errors.
        checkpoint: its content.

    Raises:
        UserError: its weights do not fit.
    """
    try:
        model.load_state_dict(evaluated_tensors(checkpoint))
    except RuntimeError as error:
        raise UserError(
            f"{path}: its weights do not fit the model that its config describes; "
            "it was written by another version of this code"
        ) from error
    return model.eval()
