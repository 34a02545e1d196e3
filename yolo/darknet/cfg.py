"""Darknet's cfg files: one section for each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from yolo.darknet.layer_records import (
    Convolution,
    LayerList,
    LayerRecord,
    MaxPool,
    Region,
    Reorg,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)

Options = Mapping[str, str | float]


def cfg_text(
    layers: LayerList,
    *,
    image_size_px: int,
    anchors_px: Sequence[Sequence[float]],
    detection: Options,
) -> str:
    """A network as a cfg.

    Args:
        layers: of a whole detector.
        image_size_px: side of the network's input.
        anchors_px: widths and heights of all anchors, from small to large.
        detection: further options of the detection layers.
    """
    net = {"batch": 1, "subdivisions": 1, "width": image_size_px, "height": image_size_px}
    sections = [_section("net", {**net, "channels": 3})]
    for index, record in enumerate(layers):
        if isinstance(record, Yolo | Region):
            sections.append(_detection(record, anchors_px, detection))
        else:
            sections.append(_layer(record, index))
    return "\n".join(sections)


def _layer(record: LayerRecord, index: int) -> str:
    """Layers refer to others by their distance, which Darknet and OpenCV both read."""
    match record:
        case Convolution():
            return _section("convolutional", dict(_convolution(record)))
        case MaxPool(size=size, stride=stride):
            return _section("maxpool", {"size": size, "stride": stride})
        case Shortcut(source=source):
            return _section("shortcut", {"from": source - index, "activation": "linear"})
        case Route(sources=sources):
            return _section("route", {"layers": ",".join(str(s - index) for s in sources)})
        case Upsample(stride=stride):
            return _section("upsample", {"stride": stride})
        case Reorg(stride=stride):
            return _section("reorg", {"stride": stride})
    raise AssertionError(record)


def _convolution(record: Convolution) -> Iterator[tuple[str, str | float]]:
    if record.norm is not None:
        yield "batch_normalize", 1
    yield "filters", record.conv.out_channels
    yield "size", record.conv.kernel_size[0]
    yield "stride", record.conv.stride[0]
    yield "pad", 1
    yield "activation", record.activation


def _detection(
    record: Yolo | Region, anchors_px: Sequence[Sequence[float]], options: Options
) -> str:
    assert len(anchors_px) == record.anchors
    unit_px = record.stride_px if isinstance(record, Region) else 1
    anchors = ", ".join(f"{w / unit_px:.9g},{h / unit_px:.9g}" for w, h in anchors_px)
    own: Options = {"anchors": anchors, "classes": record.classes, "num": record.anchors}
    if isinstance(record, Region):
        return _section("region", {**own, "coords": 4, "softmax": 1, **options})
    mask = ",".join(map(str, record.mask))
    return _section("yolo", {"mask": mask, **own, **options})


def _section(name: str, options: Options) -> str:
    lines = [f"[{name}]"]
    for key, value in options.items():
        lines.append(f"{key}={value if isinstance(value, str) else format(value, 'g')}")
    return "\n".join(lines) + "\n"
