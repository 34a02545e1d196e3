"""Weights of a model out of files: those that a training starts from, and trained ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolo.config import Config, ConfigError, TaskConfig, config_from_dict
from yolo.config.load import with_overrides
from yolo.config.schema.classification import ClassifierConfig
from yolo.config.schema.encoders import Encoder as EncoderConfig
from yolo.config.schema.model import InitConfig, ModelConfig
from yolo.darknet.cfg import LayerList, Region, Yolo
from yolo.darknet.weights import (
    WeightsFile,
    classes_for,
    count_floats,
    fill,
    is_weights_file,
    layers_in_name,
    read_weights,
)
from yolo.data.formats.detection import first_names
from yolo.errors import UserError
from yolo.factory.data import naming
from yolo.factory.detector import build_classifier, build_detector
from yolo.models.detector import Classifier, Detector, list_detector, list_encoder
from yolo.models.encoders import Encoder
from yolo.models.layers import IMAGENET, UNIT_RANGE, Normalise, Preprocessing
from yolo.models.torch_weights import (
    LoadReport,
    are_stored,
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
from yolo.train.run_folder import checkpoint_file

Loaded = tuple[LoadReport, Preprocessing | None]
"""What was filled, and the input that the file's weights expect; None where it does not know."""


def load_initial_weights(
    model: nn.Module, config: ModelConfig | ClassifierConfig
) -> list[LoadReport]:
    """Fill a new model with the weights that its config names: the encoder's first, then all.

    The weights decide what the input is normalised with, unless the config does: the last file
    that filled any of the encoder and knows it. There is a report for each file.
    """
    encoder, normalise = model.encoder, model.normalise
    assert isinstance(encoder, Encoder) and isinstance(normalise, Normalise)
    loaded: list[Loaded] = []
    if config.encoder.weights is not None:
        with naming("model.encoder.weights"):
            loaded.append(_load_encoder(encoder, config.encoder))
    if config.init is not None:
        with naming("model.init.weights"):
            loaded.append(_load_all(model, config.init))
    for _, preprocessing in loaded:
        if config.preprocessing is None and preprocessing is not None:
            normalise.adopt(preprocessing)
    return [report for report, _ in loaded]


def _load_encoder(encoder: Encoder, config: EncoderConfig) -> Loaded:
    """Fill the whole encoder; a file that lacks some of it is an error."""
    if config.weights == "imagenet":
        source = f"torchvision's ImageNet weights of {config.type}"
        fill_encoder(encoder, imagenet_tensors(config.type), source=source)
        return report_filled(encoder, source, tensors_by_layer(encoder)), IMAGENET
    path = _existing(Path(str(config.weights)))
    if is_weights_file(path):
        return load_darknet_encoder(encoder, path), UNIT_RANGE
    tensors = read_tensors(path)
    fill_encoder(encoder, tensors, source=str(path))
    report = report_filled(encoder, f"{path}, its encoder", tensors_by_layer(encoder))
    return report, stored_preprocessing(tensors)


def _load_all(model: nn.Module, config: InitConfig) -> Loaded:
    """Fill what fits, at least the share that the config asks for."""
    path = _existing(config.weights)
    preprocessing: Preprocessing | None = UNIT_RANGE
    if not is_weights_file(path):
        tensors = evaluated_tensors(load_checkpoint(path))
        report = report_filled(model, str(path), fill_matching(model, tensors))
        preprocessing = stored_preprocessing(tensors)
    elif isinstance(model, Detector):
        report = load_darknet_detector(model, path)
    else:
        raise UserError(
            f"{path}: the weights of a classifier must be a checkpoint of this project; "
            "name a file of Darknet's as model.encoder.weights"
        )
    if report.share < config.min_matched:
        layers = first_names(report.left) + (" layers" if len(report.left) > 5 else "")
        raise UserError(
            f"{path}: fits {report.parameters_filled:,} of the model's {report.parameters:,} "
            f"parameters ({report.share:.1%}), and model.init.min_matched asks for "
            f"{config.min_matched:.1%}; what did not fit: {layers}; start from a model with the "
            "same encoder and neck, or lower min_matched"
        )
    encoder_too = any(name.startswith("encoder.") for name in report.filled)
    return report, preprocessing if encoder_too else None


def _existing(path: Path) -> Path:
    file = checkpoint_file(path)
    if not file.is_file():
        raise UserError(
            f"{path}: no such weights file (scripts/download_weights.py fetches Darknet's)"
        )
    return file


@dataclass(frozen=True, slots=True)
class _Content:
    """What a Darknet file may hold: its name for reports and errors, and what `fill` is told."""

    name: str
    layers: LayerList
    settings: Mapping[str, int] = field(default_factory=dict)
    more: int = 0  # floats behind them, which are left aside

    @property
    def floats(self) -> int:
        return count_floats(self.layers, **self.settings) + self.more


def load_darknet_encoder(encoder: Encoder, path: Path) -> LoadReport:
    """Fill an encoder from a Darknet file: the encoder alone, or a classifier of 1000 classes.

    The report's layer names are relative to the encoder ("stem", "stages.0.downsample").
    """
    with naming(str(path)):
        contents = _encoder_contents(encoder)
    advice = "a whole detector's file belongs into model.init.weights"
    return _fill_with_fitting(encoder, path, read_weights(path), contents, advice)


def load_darknet_detector(detector: Detector, path: Path) -> LoadReport:
    """Fill a detector from a Darknet file, whichever of these it is by its length to the byte.

    - the same detector: everything is filled;
    - the same detector for another number of classes: everything but the last convolution of each
      head;
    - the first N layers of it, if the file's name ends in ``.conv.N``;
    - its encoder alone, or as a classifier of 1000 classes.

    The report's layer names are the detector's ("encoder.stem", "head.stride8.output").
    """
    with naming(str(path)):
        layers = list_detector(detector)
    name = f"{type(detector.encoder).__name__} + {type(detector.neck).__name__}"
    own = next(layer.classes for layer in layers if isinstance(layer, Yolo | Region))
    file = read_weights(path)
    contents = [
        _Content(f"{name} with {own} classes", layers),
        *_encoder_contents(detector.encoder),
    ]
    if (first := layers_in_name(path)) is not None:
        contents.append(_Content(f"the first {first} layers of {name}", layers, {"up_to": first}))
    if (others := classes_for(layers, len(file.floats))) not in (None, own):
        contents.append(_Content(f"{name} with {others} classes", layers, {"classes": others}))
    advice = "use the weights of the same model, with any number of classes"
    return _fill_with_fitting(detector, path, file, contents, advice)


def _encoder_contents(encoder: Encoder) -> list[_Content]:
    layers, name = list_encoder(encoder), type(encoder).__name__
    more = 1000 * (encoder.out_channels[-1] + 1)  # a classifier's last convolution stands behind it
    classifier = f"{name} as a classifier of 1000 classes"
    return [_Content(f"the encoder {name}", layers), _Content(classifier, layers, more=more)]


def _fill_with_fitting(
    model: nn.Module, path: Path, file: WeightsFile, contents: list[_Content], advice: str
) -> LoadReport:
    """Fill the model with the one content that fits the file to the byte."""
    floats = len(file.floats)
    fitting = next((content for content in contents if content.floats == floats), None)
    if fitting is None or file.extra_bytes:
        expected = " or ".join(f"{content.floats:,} for {content.name}" for content in contents)
        raise UserError(
            f"{path}: the number of floats expected is {expected}, and the file has {file.size}; "
            f"{advice}, and a damaged file has to be fetched again"
        )
    own = file.floats[: floats - fitting.more]
    ours = {id(filled.conv) for filled in fill(fitting.layers, own, **fitting.settings)}
    named = {name for name, module in model.named_modules() if id(module) in ours}
    # layers are named as everywhere: a convolution with its norm is one
    filled = [name for name in tensors_by_layer(model) if {name, f"{name}.conv"} & named]
    return report_filled(model, f"{path} ({fitting.name})", filled)


def check_weights(
    build: Callable[[], nn.Module], path: Path, tensors: Mapping[str, Tensor]
) -> None:
    """Refuse tensors that are not those of the model that is to be built for them.

    They are compared without memory for the model; ``path`` names the checkpoint.
    """
    with torch.device("meta"):
        model = build().state_dict()
    wanted, found = ({n: (t.shape, t.dtype) for n, t in each.items()} for each in (model, tensors))
    if wanted != found or not are_stored(tensors.values()):
        raise UserError(
            f"{path}: its weights do not fit the model that its config describes; "
            "it was written by another version of this code"
        )


def build_model(config: TaskConfig, class_names: Sequence[str]) -> Detector | Classifier:
    """The model of a config of either task, with random weights."""
    if isinstance(config, Config):
        return build_detector(config, class_names)
    return build_classifier(config, class_names)


def load_trained(
    path: Path, checkpoint: Mapping[str, Any], config: TaskConfig
) -> Detector | Classifier:
    """Build and fill a model as it was scored: averaged weights, if any, trained statistics."""
    tensors, build = evaluated_tensors(checkpoint), partial(build_model, config)
    check_weights(partial(build, checkpoint["class_names"]), path, tensors)
    model = build(checkpoint["class_names"])
    model.load_state_dict(tensors)
    return model.eval()


def load_detector(path: Path, checkpoint: Mapping[str, Any], config: Config) -> Detector:
    """`load_trained` of a detector's config."""
    detector = load_trained(path, checkpoint, config)
    assert isinstance(detector, Detector)
    return detector


def load_trained_detector(path: Path) -> tuple[dict[str, Any], Config, Detector]:
    """A checkpoint's content, its config, and its detector in evaluation mode on the CPU.

    Averaged weights are taken if there are some. A file that cannot be read or holds a classifier
    is a ``UserError``.
    """
    checkpoint = load_checkpoint(path)
    config = read_config(path, checkpoint)
    if not isinstance(config, Config):
        raise UserError(f"{path}: holds a classifier, which finds no boxes; name a detector's")
    return checkpoint, config, load_detector(path, checkpoint, config)


def read_config(
    path: Path, checkpoint: Mapping[str, Any], overrides: Sequence[str] = ()
) -> TaskConfig:
    """The config that a checkpoint was trained with; one of another version is a UserError.

    The overrides, `key=value` each, are laid over it.
    """
    try:
        config = config_from_dict(checkpoint["config"])
    except ConfigError as error:
        first, *more = error.problems
        raise UserError(
            f"{path}: its config is not one that this version of the code knows: {first}"
            + (f" ({len(more)} more are wrong)" if more else "")
        ) from error
    if not overrides:
        return config
    try:
        return with_overrides(config.model_dump(mode="json"), overrides, path)
    except ConfigError as error:
        raise UserError("; ".join(error.problems)) from error
