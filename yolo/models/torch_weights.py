"""Weights for a model out of PyTorch's files: what a file holds, and which layers it fills."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models

from yolo.errors import UserError
from yolo.models.encoders.encoder import Encoder
from yolo.models.layers import Preprocessing
from yolo.models.summary import is_conv_block

IMAGENET_WEIGHTS: dict[str, models.WeightsEnum] = {
    "mobilenet_v3_large": models.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
    "mobilenet_v3_small": models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
}
"""Type of encoder -> torchvision's weights, the version that its own detectors start from."""

COUNTER = "num_batches_tracked"
"""Batch norm's step counters are not needed, and old files lack them."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a file gave to a model, or to a part of it, and what it left at its initial values."""

    source: str  # the file, and what was found in it
    filled: tuple[str, ...]  # names of layers, in the model's order
    left: tuple[str, ...]
    parameters_filled: int  # running statistics do not count
    parameters: int

    @property
    def share(self) -> float:
        """Share of the parameters that were filled, 0 to 1."""
        return self.parameters_filled / self.parameters if self.parameters else 1.0

    def lines(self) -> list[str]:
        """For the log: how much was filled, then the layers that were left."""
        heading = (
            f"{self.source}: {len(self.filled)} of {len(self.filled) + len(self.left)} layers, "
            f"{self.share:.1%} of {self.parameters:,} parameters"
        )
        return [heading, *(f"  left at its initial values: {name}" for name in self.left)]


def report_filled(model: nn.Module, source: str, filled: Collection[str]) -> LoadReport:
    """Report on a model whose layers ``filled``, in any order, took their values from a file."""
    layers = tensors_by_layer(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    ours = tuple(name for name in layers if name in filled)
    return LoadReport(
        source=source,
        filled=ours,
        left=tuple(name for name in layers if name not in filled),
        parameters_filled=sum(sizes.get(name, 0) for layer in ours for name in layers[layer]),
        parameters=sum(sizes.values()),
    )


def tensors_by_layer(model: nn.Module) -> dict[str, list[str]]:
    """Names of parameters and buffers by their layer, as the summary counts layers, in order.

    A convolution with its batch norm is one; what has no parameters is none.
    """
    blocks = {name for name, module in model.named_modules() if is_conv_block(module)}

    def layer_of(tensor: str) -> str:
        module = tensor.rpartition(".")[0]
        block = module.rpartition(".")[0]
        return block if block in blocks else module

    layers: dict[str, list[str]] = {}
    for name in model.state_dict():
        layers.setdefault(layer_of(name), []).append(name)
    with_parameters = {layer_of(name) for name, _ in model.named_parameters()}
    return {layer: names for layer, names in layers.items() if layer in with_parameters}


def fill_matching(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Fill every layer whose tensors are all there by name and shape. Returns their names.

    A layer is filled as a whole or not at all: a bias of the right length beside a weight of
    another shape would belong to something else.
    """
    fitting = _fitting(tensors, model.state_dict())
    filled = {
        layer: names
        for layer, names in tensors_by_layer(model).items()
        if all(name in fitting or name.endswith(COUNTER) for name in names)
    }
    chosen = {name for names in filled.values() for name in names}
    model.load_state_dict({n: t for n, t in fitting.items() if n in chosen}, strict=False)
    return tuple(filled)


def fill_encoder(encoder: Encoder, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Fill an encoder, all of it, from the tensors of a file.

    The tensors may be those of the encoder alone, of a whole detector or classifier
    (``encoder.*``), or torchvision's for the same network, with or without its classifier. What
    there is beyond the encoder is left aside; what is missing is a ``UserError`` on ``source``.
    """
    state, prefix = encoder.state_dict(), "encoder."
    within = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    features = {f"features.{name}": t for name, t in tensors.items()}
    best = max((_fitting(named, state) for named in (tensors, within, features)), key=len)
    needed = [name for name in state if not name.endswith(COUNTER)]
    if missing := [name for name in needed if name not in best]:
        raise UserError(
            f"{source}: {len(needed) - len(missing)} of the encoder's {len(needed)} tensors match "
            f"by name and shape, the first that does not is {missing[0]} "
            f"{tuple(state[missing[0]].shape)}; use weights of the same encoder and width, or "
            f"start from random weights (null)."
        )
    encoder.load_state_dict(best, strict=False)


def _fitting(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that a model has, in its shape."""
    return {n: t for n, t in tensors.items() if n in state and t.shape == state[n].shape}


def load_plain(path: Path) -> Any:
    """Read what ``torch.save`` wrote to the CPU, without running any code.

    What the unpickler raises on foreign bytes is anyone's guess: an Exception of any kind.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                # torch.save never compresses, and a kilobyte could stand for a gigabyte
                raise ValueError("its data are compressed")
            if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
                raise ValueError("its data overlap")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of other pickle protocols: it reads or fails
        return torch.load(path, map_location="cpu", weights_only=True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors, or of a checkpoint what it was scored with."""
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; check the path.")
    not_tensors = UserError(
        f"{path}: not a PyTorch state_dict; name a file of tensors written by torch.save."
    )
    try:
        content = load_plain(path)
    except Exception as error:
        raise not_tensors from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = evaluated_tensors(content)
    entries = content.items() if isinstance(content, Mapping) else ()
    if tensors := {name: value for name, value in entries if isinstance(value, Tensor)}:
        return tensors
    raise not_tensors


def evaluated_tensors(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint was scored with: averaged weights, if any, with the trained statistics."""
    trained, averaged = checkpoint["model"], checkpoint.get("ema")
    if not isinstance(averaged, Mapping):
        return dict(trained)
    statistics = ("running_mean", "running_var", COUNTER)
    return {
        name: value if name.endswith(statistics) else averaged.get(f"module.{name}", value)
        for name, value in trained.items()
    }


def are_stored(tensors: Collection[Tensor]) -> bool:
    """Whether all numbers are there: a step of 0 lets one stand for as many as a shape says."""
    if any(t.layout != torch.strided or t.device.type != "cpu" for t in tensors):
        return False
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(t.nbytes for t in tensors) <= sum(storages.values())


def stored_preprocessing(tensors: Mapping[str, Tensor]) -> Preprocessing | None:
    """What a whole model normalises its input with; None where the file does not have it."""
    mean, std = tensors.get("normalise.mean"), tensors.get("normalise.std")
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return None
    return Preprocessing(mean=tuple(mean.flatten().tolist()), std=tuple(std.flatten().tolist()))


def imagenet_tensors(encoder_type: str) -> dict[str, Tensor]:
    """Torchvision's weights from its cache, or downloaded; ``encoder_type`` of IMAGENET_WEIGHTS."""
    advice = "add it there or take the encoder out of the schema's TorchvisionConfig"
    assert encoder_type in IMAGENET_WEIGHTS, (
        f"{encoder_type} is not in IMAGENET_WEIGHTS, in {__name__}; {advice}"
    )
    imagenet = IMAGENET_WEIGHTS[encoder_type]
    try:
        tensors = imagenet.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"imagenet could not be fetched from {imagenet.url} ({error}); download that file "
            f"elsewhere and name its path instead, or set weights to null."
        ) from error
    # the oldest files, DenseNet's, have norm.1 where torchvision's own models have norm1
    return {re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", name): t for name, t in tensors.items()}
