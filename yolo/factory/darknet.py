"""Weights to start from, out of Darknet's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from yolo.darknet.cfg import Convolution, Region, Yolo
from yolo.darknet.weights import classes_for, count_floats, fill, layers_in_name, read_weights
from yolo.errors import UserError
from yolo.models.darknet_layers import list_detector, list_encoder
from yolo.models.detector import Detector
from yolo.models.encoders import Encoder
from yolo.models.weights import LoadReport, report_filled, tensors_by_layer

IMAGENET_CLASSES = 1000
"""Of Darknet's classifiers, whose last convolution stands behind the encoder."""


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file may hold: its name for reports and errors, its length, and how it is copied."""

    name: str
    floats: int
    fill: Callable[[np.ndarray], list[Convolution]]


def load_darknet_encoder(encoder: Encoder, path: Path) -> LoadReport:
    """Fill an encoder from a Darknet file: the encoder alone, or a classifier of 1000 classes.

    The report's layer names are relative to the encoder ("stem", "stages.0.downsample").

    Raises:
        UserError: Darknet has no such encoder, or the file does not fit it to the byte.
    """
    with _naming(path):
        contents = list(_encoder_contents(encoder))
    return _load(encoder, path, contents, "a whole detector's file belongs into model.init.weights")


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
    name = f"{type(detector.encoder).__name__} + {type(detector.neck).__name__}"
    own = next(layer.classes for layer in layers if isinstance(layer, Yolo | Region))

    def with_classes(classes: int) -> _Content:
        return _Content(
            f"{name} with {classes} classes",
            count_floats(layers, classes=classes),
            lambda floats: fill(layers, floats, classes=classes),
        )

    contents = [with_classes(own), *_encoder_contents(detector.encoder)]
    if (first := layers_in_name(path)) is not None:
        contents.append(
            _Content(
                f"the first {first} layers of {name}",
                count_floats(layers, up_to=first),
                lambda floats: fill(layers, floats, up_to=first),
            )
        )

    def otherwise(floats: int) -> _Content | None:
        classes = classes_for(layers, floats)
        return None if classes is None else with_classes(classes)

    advice = "use the weights of the same model, with any number of classes"
    return _load(detector, path, contents, advice, otherwise)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file in front of the error that the model is not Darknet's."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _encoder_contents(encoder: Encoder) -> Iterator[_Content]:
    layers = list_encoder(encoder)
    name, own = type(encoder).__name__, count_floats(layers)
    yield _Content(f"the encoder {name}", own, lambda floats: fill(layers, floats))
    yield _Content(
        f"{name} as a classifier of {IMAGENET_CLASSES} classes",
        own + IMAGENET_CLASSES * (encoder.out_channels[-1] + 1),
        lambda floats: fill(layers, floats[:own]),
    )


def _load(
    model: nn.Module,
    path: Path,
    contents: Sequence[_Content],
    advice: str,
    otherwise: Callable[[int], _Content | None] = lambda floats: None,
) -> LoadReport:
    """Fill the model with the one content that fits the file to the byte."""
    file = read_weights(path)
    floats = len(file.floats)
    fitting = next((content for content in contents if content.floats == floats), None)
    fitting = fitting or otherwise(floats)
    if fitting is None or file.extra_bytes:
        expected = " or ".join(f"{content.floats:,} for {content.name}" for content in contents)
        raise UserError(
            f"{path}: the number of floats expected is {expected}, and the file has {file.size}; "
            f"{advice}, and a damaged file has to be fetched again"
        )
    ours = {id(convolution.conv) for convolution in fitting.fill(file.floats)}
    named = {name for name, module in model.named_modules() if id(module) in ours}
    # layers are named as everywhere: a convolution with its norm is one
    filled = [name for name in tensors_by_layer(model) if {name, f"{name}.conv"} & named]
    return report_filled(model, f"{path} ({fitting.name})", filled)
