"""Darknet's cfg: a network as a list of layers, and that list as text.

The parts of a model add their layers to a ``LayerList``, which also gives ``weights`` the order of
the convolutions; nothing here knows a model. The names and meanings of the records are those of the
sections of a cfg file. Layers refer to each other by their index in the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

BOX_FIELDS = 5
"""x, y, w, h, objectness: what a detection layer reads before the classes."""

Options = Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class Convolution:
    """``[convolutional]``: the padding keeps the size, up to the stride."""

    conv: nn.Conv2d  # holds the weights; and the biases where there is no norm
    norm: nn.BatchNorm2d | None
    activation: Literal["leaky", "linear"]  # leaky has the slope 0.1

    def __post_init__(self) -> None:
        assert (self.norm is None) == (self.conv.bias is not None)
        assert self.conv.padding == tuple(size // 2 for size in self.conv.kernel_size)


class MaxPool(NamedTuple):
    """``[maxpool]``, padded by ``size - 1`` in all, the smaller half in front."""

    size: int
    stride: int


class Shortcut(NamedTuple):
    """``[shortcut]``: the layer before plus the layer ``source``."""

    source: int


class Route(NamedTuple):
    """``[route]``: the channels of the layers ``sources``, one after the other."""

    sources: tuple[int, ...]


class Upsample(NamedTuple):
    """``[upsample]``: every cell ``stride`` x ``stride`` times."""

    stride: int


class Reorg(NamedTuple):
    """``[reorg]``: blocks of ``stride`` x ``stride`` cells become channels."""

    stride: int


class Yolo(NamedTuple):
    """``[yolo]``: YOLOv3's detection at one scale."""

    mask: tuple[int, ...]  # which of all anchors, from small to large, this scale has
    anchors: int  # how many there are in all
    classes: int


class Region(NamedTuple):
    """``[region]``: YOLOv2's detection."""

    anchors: int  # all of them at every cell
    classes: int
    stride_px: int  # pixels per cell; the cfg gives anchors in cells


Layer = Convolution | MaxPool | Shortcut | Route | Upsample | Reorg | Yolo | Region


class LayerList(list[Layer]):
    """The layers so far; the parts of a model add theirs one after the other."""

    def add(self, layer: Layer) -> int:
        """Append a layer, whose input is the one before it. Returns its index."""
        self.append(layer)
        return len(self) - 1

    def go_on_from(self, source: int) -> None:
        """Make a layer the input of the next: by a route, unless it is the last one anyway."""
        if source != len(self) - 1:
            self.append(Route((source,)))

    def add_all(self, modules: Iterable[Any], *, after: int | None = None) -> int:
        """Add the layers of modules in a row by their ``list_layers``; the first reads ``after``.

        None stands for the last one so far. Returns the index of the last layer.
        """
        if after is not None:
            self.go_on_from(after)
        for module in modules:
            module.list_layers(self)
        return len(self) - 1

    @property
    def convolutions(self) -> list[Convolution]:
        """The layers that have weights."""
        return [layer for layer in self if isinstance(layer, Convolution)]


def cfg_text(
    layers: LayerList,
    *,
    image_size_px: int,
    anchors_px: Sequence[Sequence[float]],
    detection: Options,
) -> str:
    """A whole detector as a cfg.

    ``anchors_px`` are the widths and heights of all, from small to large; ``detection`` are further
    options of the detection layers.
    """
    side = {"width": image_size_px, "height": image_size_px}
    sections = [_section("net", {"batch": 1, "subdivisions": 1, **side, "channels": 3})]
    for index, layer in enumerate(layers):
        if isinstance(layer, Yolo | Region):
            sections.append(_detection(layer, anchors_px, detection))
        else:
            sections.append(_section(*_name_and_options(layer, index)))
    return "\n".join(sections)


def _name_and_options(layer: Layer, index: int) -> tuple[str, Options]:
    """Layers refer to others by their distance, which Darknet and OpenCV both read."""
    match layer:
        case Convolution(conv, norm, activation):
            options: dict[str, str | float] = {"batch_normalize": 1} if norm is not None else {}
            size, stride = conv.kernel_size[0], conv.stride[0]
            options |= {"filters": conv.out_channels, "size": size, "stride": stride, "pad": 1}
            return "convolutional", options | {"activation": activation}
        case MaxPool() | Upsample() | Reorg():
            return type(layer).__name__.lower(), layer._asdict()
        case Shortcut(source):
            return "shortcut", {"from": source - index, "activation": "linear"}
        case Route(sources):
            return "route", {"layers": ",".join(str(source - index) for source in sources)}
    raise AssertionError(layer)


def _detection(layer: Yolo | Region, anchors_px: Sequence[Sequence[float]], more: Options) -> str:
    assert len(anchors_px) == layer.anchors
    unit_px = layer.stride_px if isinstance(layer, Region) else 1
    anchors = ", ".join(f"{w / unit_px:.9g},{h / unit_px:.9g}" for w, h in anchors_px)
    own: Options = {"anchors": anchors, "classes": layer.classes, "num": layer.anchors}
    if isinstance(layer, Region):
        return _section("region", {**own, "coords": 4, "softmax": 1, **more})
    return _section("yolo", {"mask": ",".join(map(str, layer.mask)), **own, **more})


def _section(name: str, options: Options) -> str:
    lines = (f"{key}={v if isinstance(v, str) else format(v, 'g')}" for key, v in options.items())
    return "\n".join([f"[{name}]", *lines, ""])
