"""Models as lists of Darknet's layers, for reading and writing its files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from yolo.darknet.cfg import LayerList
from yolo.errors import UserError
from yolo.models.detector import Detector
from yolo.models.encoders import ENCODERS, Encoder
from yolo.models.necks import NECKS


def list_encoder(encoder: Encoder) -> LayerList:
    """An encoder's layers in Darknet's order.

    Raises:
        UserError: it is not made of Darknet's layers.
    """
    layers = LayerList()
    _method(encoder, "list_layers", "encoder")(layers)
    return layers


def list_detector(detector: Detector) -> LayerList:
    """A detector's layers in Darknet's order, where each level's head follows its part of the neck.

    Raises:
        UserError: a part is not made of Darknet's layers.
    """
    list_layers = _method(detector.encoder, "list_layers", "encoder")
    list_levels = _method(detector.neck, "list_levels", "neck")
    list_level = _method(detector.head, "list_level", "head")
    layers = LayerList()
    for level in list_levels(layers, list_layers(layers)):
        list_level(layers, level)
    return layers


def _method(part: nn.Module, name: str, kind: str) -> Callable[..., Any]:
    """What adds a part's layers to a list."""
    if method := getattr(part, name, None):
        return method
    encoders = (name for name, build in ENCODERS.items() if hasattr(build, "list_layers"))
    necks = (name for name, build in NECKS.items() if hasattr(build, "list_levels"))
    raise UserError(
        f"the {kind} {type(part).__name__} is not one that files of Darknet can hold here; they "
        f"can hold the encoders {', '.join(encoders)} with the necks {', '.join(necks)}"
    )
