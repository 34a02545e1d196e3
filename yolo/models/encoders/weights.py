"""Pretrained weights for an encoder: where they come from, and which tensors of a file fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import Tensor
from torchvision import models

from yolo.errors import UserError
from yolo.models.encoders.encoder import Encoder
from yolo.models.layers import Preprocessing
from yolo.models.torch_files import load_plain

IMAGENET_WEIGHTS: dict[str, models.WeightsEnum] = {
    "mobilenet_v3_large": models.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
    "mobilenet_v3_small": models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
}
"""Type of encoder -> torchvision's weights, the version that its own detectors start from."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def fill_encoder(encoder: Encoder, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Fill an encoder, all of it, from the tensors of a file.

    The tensors may be those of the encoder alone, of a whole detector or classifier
    (``encoder.*``), or torchvision's for the same network, with or without its classifier. What
    there is beyond the encoder is left aside.

    Args:
        encoder: to be filled in place.
        tensors: by name, see ``read_tensors`` and ``imagenet_tensors``.
        source: where they come from, for the error.

    Raises:
        UserError: a tensor of the encoder is missing or has another shape.
    """
    state = encoder.state_dict()
    best = max((_fitting(renamed, state) for renamed in _renamings(tensors)), key=len)
    # batch norm's step counters are not needed, and old files lack them
    needed = [name for name in state if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in best]
    if missing:
        matching, first = len(needed) - len(missing), missing[0]
        raise UserError(
            f"{source}: {matching} of the encoder's {len(needed)} tensors match by name and shape, "
            f"the first that does not is {first} {tuple(state[first].shape)}; use weights of the "
            f"same encoder and width, or set model.encoder.weights to null."
        )
    encoder.load_state_dict(best, strict=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors that ``torch.save`` wrote; it cannot run code.

    Of a checkpoint these are the averaged weights, if it has them, with the trained statistics.

    Raises:
        UserError: the file is missing or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; check model.encoder.weights.")
    try:
        content = load_plain(path)
    except Exception as error:  # what the unpickler raises on foreign bytes is anyone's guess
        raise _not_a_state_dict(path) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = evaluated_tensors(content)
    if not isinstance(content, Mapping):
        raise _not_a_state_dict(path)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _not_a_state_dict(path)
    return tensors


def evaluated_tensors(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint was scored with: averaged weights, if any, with the trained statistics."""
    trained, averaged = checkpoint["model"], checkpoint.get("ema")
    if not isinstance(averaged, Mapping):
        return dict(trained)
    return {
        name: value
        if name.rpartition(".")[2] in _STATISTICS
        else averaged.get(f"module.{name}", value)
        for name, value in trained.items()
    }


def stored_preprocessing(tensors: Mapping[str, Tensor]) -> Preprocessing | None:
    """What a whole model normalises its input with; None where the file does not tell."""
    mean, std = tensors.get("normalise.mean"), tensors.get("normalise.std")
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return None
    return Preprocessing(mean=tuple(mean.flatten().tolist()), std=tuple(std.flatten().tolist()))


def imagenet_tensors(encoder_type: str) -> dict[str, Tensor]:
    """Torchvision's weights from its cache, or downloaded; without a progress bar.

    Args:
        encoder_type: a key of ``IMAGENET_WEIGHTS``.

    Raises:
        UserError: there is no connection.
    """
    imagenet = IMAGENET_WEIGHTS[encoder_type]
    try:
        return dict(imagenet.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"model.encoder.weights: imagenet could not be fetched from {imagenet.url} ({error}); "
            f"download that file elsewhere and name its path instead, or set weights to null."
        ) from error


def _not_a_state_dict(path: Path) -> UserError:
    return UserError(
        f"{path}: not a PyTorch state_dict; model.encoder.weights must name a file of tensors "
        f"written by torch.save."
    )


def _renamings(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors under the names they would have in an encoder, for each kind of file."""
    yield dict(tensors)
    prefix = "encoder."
    yield {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    yield {f"features.{name}": t for name, t in tensors.items()}


def _fitting(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that the encoder has, in its shape."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name in state and tensor.shape == state[name].shape
    }
