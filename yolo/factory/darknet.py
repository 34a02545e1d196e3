"""Weights to start from, out of Darknet's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from yolo.darknet.layer_records import Convolution, LayerList, Region, Yolo
from yolo.darknet.weights import (
    WeightsFile,
    classes_for,
    count_floats,
    fill,
    layers_in_name,
    read_weights,
)
from yolo.errors import UserError
from yolo.models.darknet_listing import list_detector, list_encoder
from yolo.models.detector import Detector
from yolo.models.encoders.encoder import Encoder
from yolo.models.load_report import LoadReport
from yolo.models.matching import report_filled, tensors_by_layer

IMAGENET_CLASSES = 1000
"""Of Darknet's classifiers, whose last convolution stands behind the encoder."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a file.

    Attributes:
        name: what the file then is, for reports and errors.
        floats: how many it holds.
        fill: copies them, and tells which convolutions were filled.
    """

    name: str
    floats: int
    fill: Callable[[WeightsFile], list[Convolution]]


def load_darknet_encoder(encoder: Encoder, path: Path) -> LoadReport:
    """Fill an encoder from a Darknet file: the encoder alone, or a classifier of 1000 classes.

    The report's layer names are relative to the encoder ("stem", "stages.0.downsample").

    Raises:
        UserError: Darknet has no such encoder, or the file does not fit it to the byte.
    """
    with _naming(path):
        readings = list(_encoder_readings(encoder))
    advice = "a whole detector's file belongs into model.init.weights"
    return _load(encoder, path, readings, advice=advice)


def load_darknet_detector(detector: Detector, path: Path) -> LoadReport:
    """Fill a detector from a Darknet file, whichever of these it is by its length.

    - the same detector: everything is filled;
    - the same detector for another number of classes: everything but the last convolution of each
      head;
    - the first N layers of it, if the file's name ends in ``.conv.N``;
    - its encoder alone, or as a classifier of 1000 classes.

    The report's layer names are the detector's ("encoder.stem", "head.stride8.output").

    Raises:
        UserError: Darknet has no such model, or the file does not fit it to the byte.
    """
    with _naming(path):
        layers = list_detector(detector)
    readings = [_whole_reading(detector, layers), *_encoder_readings(detector.encoder)]
    first = layers_in_name(path)
    if first is not None:
        readings.append(_first_layers_reading(detector, layers, first))
    return _load(
        detector,
        path,
        readings,
        other_classes=partial(_other_classes, detector, layers),
        advice="use the weights of the same model, with any number of classes",
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file in front of the error that the model is not Darknet's."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _load(
    model: nn.Module,
    path: Path,
    readings: Sequence[Reading],
    *,
    advice: str,
    other_classes: Callable[[int], Reading | None] = lambda floats: None,
) -> LoadReport:
    """Read the file the one way that fits it to the byte."""
    file = read_weights(path)
    floats = len(file.floats)
    fitting = [reading for reading in readings if reading.floats == floats]
    other = None if fitting else other_classes(floats)
    if other is not None:
        fitting = [other]
    if not fitting or file.extra_bytes:
        expected = " or ".join(f"{r.floats:,} for {r.name}" for r in readings)
        raise UserError(
            f"{path}: the number of floats expected is {expected}, and the file has {file.size}; "
            f"{advice}, and a damaged file has to be fetched again"
        )
    reading = fitting[0]
    return _report(model, f"{path} ({reading.name})", reading.fill(file))


def _encoder_readings(encoder: Encoder) -> Iterator[Reading]:
    layers = list_encoder(encoder)
    name, floats = type(encoder).__name__, count_floats(layers)
    yield Reading(f"the encoder {name}", floats, lambda file: fill(layers, file.floats))
    classifier = IMAGENET_CLASSES * (encoder.out_channels[-1] + 1)
    yield Reading(
        f"{name} as a classifier of {IMAGENET_CLASSES} classes",
        floats + classifier,
        lambda file: fill(layers, file.floats[:floats]),
    )


def _whole_reading(detector: Detector, layers: LayerList) -> Reading:
    name = f"{_name(detector)} with {_classes(layers)} classes"
    return Reading(name, count_floats(layers), lambda file: fill(layers, file.floats))


def _first_layers_reading(detector: Detector, layers: LayerList, first: int) -> Reading:
    return Reading(
        f"the first {first} layers of {_name(detector)}",
        count_floats(layers, up_to=first),
        lambda file: fill(layers, file.floats, up_to=first),
    )


def _other_classes(detector: Detector, layers: LayerList, floats: int) -> Reading | None:
    """The same detector for another number of classes, if one has so many floats."""
    classes = classes_for(layers, floats)
    if classes is None:
        return None
    name = f"{_name(detector)} with {classes} classes"
    return Reading(name, floats, lambda file: fill(layers, file.floats, classes=classes))


def _name(detector: Detector) -> str:
    return f"{type(detector.encoder).__name__} + {type(detector.neck).__name__}"


def _classes(layers: LayerList) -> int:
    return next(record.classes for record in layers if isinstance(record, Yolo | Region))


def _report(model: nn.Module, source: str, convolutions: Sequence[Convolution]) -> LoadReport:
    """Layers are named as everywhere: a convolution with its norm is one."""
    ours = {id(convolution.conv) for convolution in convolutions}
    named = {name for name, module in model.named_modules() if id(module) in ours}
    filled = [name for name in tensors_by_layer(model) if {name, f"{name}.conv"} & named]
    return report_filled(model, source, filled)
