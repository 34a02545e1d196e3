"""Models as lists of Darknet's layers, for reading and writing its files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import nn

from yolo.darknet.layer_records import LayerList
from yolo.errors import UserError
from yolo.models.detector import Detector


@runtime_checkable
class DarknetEncoder(Protocol):
    """An encoder that Darknet can express."""

    def list_layers(self, layers: LayerList) -> tuple[int, int, int]:
        """Add its layers to the list; the indices of its maps at strides 8, 16 and 32."""


@runtime_checkable
class DarknetNeck(Protocol):
    """A neck that Darknet can express."""

    def list_levels(self, layers: LayerList, maps: tuple[int, int, int]) -> Iterator[int]:
        """Add its layers to the list, level by level; see ``YOLOv3Neck.list_levels``."""


@runtime_checkable
class DarknetHead(Protocol):
    """A head that Darknet can express."""

    def list_level(self, layers: LayerList, level: int) -> None:
        """Add the layers of one level to the list."""


def list_encoder(encoder: nn.Module) -> LayerList:
    """An encoder's layers in Darknet's order.

    Raises:
        UserError: it is not made of Darknet's layers.
    """
    if not isinstance(encoder, DarknetEncoder):
        raise _inexpressible("encoder", encoder)
    layers = LayerList()
    encoder.list_layers(layers)
    return layers


def list_detector(detector: Detector) -> LayerList:
    """A detector's layers in Darknet's order, where each level's head follows its part of the neck.

    Raises:
        UserError: a part is not made of Darknet's layers.
    """
    encoder, neck, head = detector.encoder, detector.neck, detector.head
    if not isinstance(encoder, DarknetEncoder):
        raise _inexpressible("encoder", encoder)
    if not isinstance(neck, DarknetNeck):
        raise _inexpressible("neck", neck)
    if not isinstance(head, DarknetHead):
        raise _inexpressible("head", head)
    layers = LayerList()
    for level in neck.list_levels(layers, encoder.list_layers(layers)):
        head.list_level(layers, level)
    return layers


def _inexpressible(name: str, part: nn.Module) -> UserError:
    return UserError(
        f"the {name} {type(part).__name__} is not one that files of Darknet can hold here; they "
        "can hold the encoders darknet53, darknet_tiny, darknet19 and extraction with the necks "
        "and heads of YOLOv2 and YOLOv3"
    )
