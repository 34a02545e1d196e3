"""A network as Darknet knows it: a list of plain records in the order of its cfg.

The parts of a model write themselves into a ``LayerList``; ``yolo/darknet`` turns the list into
files and files into weights, without knowing any model. The names and meanings of the records are
those of the sections of a ``.cfg`` file. Layers refer to each other by their index in the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn

BOX_FIELDS = 5
"""x, y, w, h, objectness: what a detection layer reads before the classes."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """``[convolutional]``: the padding keeps the size, up to the stride.

    Attributes:
        conv: holds the weights; and the biases where there is no norm.
        norm: holds scales, biases and running statistics.
        activation: ``leaky`` has the slope 0.1.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    activation: Literal["leaky", "linear"]

    def __post_init__(self) -> None:
        assert (self.norm is None) == (self.conv.bias is not None)
        assert self.conv.padding == tuple(size // 2 for size in self.conv.kernel_size)


@dataclass(frozen=True, slots=True)
class MaxPool:
    """``[maxpool]``, padded by ``size - 1`` in all, the smaller half in front."""

    size: int
    stride: int


@dataclass(frozen=True, slots=True)
class Shortcut:
    """``[shortcut]``: the layer before plus the layer ``source``."""

    source: int


@dataclass(frozen=True, slots=True)
class Route:
    """``[route]``: the channels of the layers ``sources``, one after the other."""

    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Upsample:
    """``[upsample]``: every cell ``stride`` x ``stride`` times."""

    stride: int


@dataclass(frozen=True, slots=True)
class Reorg:
    """``[reorg]``: blocks of ``stride`` x ``stride`` cells become channels."""

    stride: int


@dataclass(frozen=True, slots=True)
class Yolo:
    """``[yolo]``: YOLOv3's detection at one scale.

    Attributes:
        mask: which of all anchors, from small to large, this scale has.
        anchors: how many there are in all.
        classes: K.
    """

    mask: tuple[int, ...]
    anchors: int
    classes: int

    def outputs(self, classes: int) -> int:
        """Channels that its input needs for a number of classes."""
        return len(self.mask) * (BOX_FIELDS + classes)


@dataclass(frozen=True, slots=True)
class Region:
    """``[region]``: YOLOv2's detection.

    Attributes:
        anchors: A, all of them at every cell.
        classes: K.
        stride_px: pixels per cell; the cfg gives anchors in cells.
    """

    anchors: int
    classes: int
    stride_px: int

    def outputs(self, classes: int) -> int:
        """Channels that its input needs for a number of classes."""
        return self.anchors * (BOX_FIELDS + classes)


LayerRecord = Convolution | MaxPool | Shortcut | Route | Upsample | Reorg | Yolo | Region


class LayerList:
    """The layers so far; the parts of a model add theirs one after the other."""

    def __init__(self) -> None:
        self._records: list[LayerRecord] = []

    def __iter__(self) -> Iterator[LayerRecord]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: LayerRecord) -> int:
        """Append a layer, whose input is the one before it. Returns its index."""
        self._records.append(record)
        return len(self._records) - 1

    def go_on_from(self, source: int) -> None:
        """Make a layer the input of the next: by a route, unless it is the last one anyway."""
        if source != len(self._records) - 1:
            self.add(Route((source,)))

    @property
    def convolutions(self) -> list[Convolution]:
        """The layers that have weights."""
        return [record for record in self._records if isinstance(record, Convolution)]


@runtime_checkable
class ListsItself(Protocol):
    """A module that is one layer of Darknet's or several in a row."""

    def list_layers(self, layers: LayerList) -> int:
        """Add its layers, the first of which reads the last so far. The index of its last one."""


def list_in_a_row(layers: LayerList, modules: Iterable[nn.Module]) -> int:
    """Add the layers of modules that follow each other. Returns the index of the last layer."""
    for module in modules:
        assert isinstance(module, ListsItself), module
        module.list_layers(layers)
    return len(layers) - 1
