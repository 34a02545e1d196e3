"""Pretrained weights for an encoder, from a file of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from yolo.errors import UserError
from yolo.models.encoders.encoder import Encoder


def load_encoder_weights(encoder: Encoder, path: Path) -> None:
    """Fill an encoder from a state_dict that ``torch.save`` wrote.

    The file may hold the tensors of the encoder alone, of a whole model (``encoder.*``), a
    checkpoint of one under the key ``model``, or torchvision's tensors for the same network, with
    or without its classifier. What it holds beyond the encoder is left aside.

    Raises:
        UserError: the file is missing, is of another kind, or lacks a tensor of the encoder.
    """
    tensors = read_tensors(path)
    state = encoder.state_dict()
    best = max((_fitting(renamed, state) for renamed in _renamings(tensors)), key=len)
    # batch norm's step counters are not needed, and old files lack them
    needed = [name for name in state if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in best]
    if missing:
        matching, first = len(needed) - len(missing), missing[0]
        raise UserError(
            f"{path}: {matching} of the encoder's {len(needed)} tensors match by name and shape, "
            f"the first that does not is {first} {tuple(state[first].shape)}; use weights of the "
            f"same encoder and width, or set model.encoder.weights to null."
        )
    encoder.load_state_dict(best, strict=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors; it cannot run code (``weights_only``).

    Raises:
        UserError: the file is missing or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; check model.encoder.weights.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the unpickler raises on foreign bytes is anyone's guess
        raise _not_a_state_dict(path) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise _not_a_state_dict(path)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _not_a_state_dict(path)
    return tensors


def _not_a_state_dict(path: Path) -> UserError:
    return UserError(
        f"{path}: not a PyTorch state_dict; model.encoder.weights must name a file of tensors "
        f"written by torch.save."
    )


def _renamings(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors under the names they would have in an encoder, for each kind of file."""
    yield tensors
    prefix = "encoder."
    yield {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    yield {f"features.{name}": t for name, t in tensors.items()}


def _fitting(tensors: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that the encoder has, in its shape."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name in state and tensor.shape == state[name].shape
    }
