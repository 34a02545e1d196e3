"""Convolutions that have taken in the batch norm behind them: the same network in fewer steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def fuse(model: Model) -> Model:
    """A copy for inference in which every batch norm is part of the convolution before it.

    With running mean m and variance v, ``norm(conv(x)) = g * (W x + b - m) / sqrt(v + eps) + h``
    is a convolution with the weights ``W * g / sqrt(v + eps)``. They are computed in float64 and
    rounded once, so the outputs are the model's within float rounding. What was a batch norm is an
    ``nn.Identity``, so that all other layers keep their names.

    The pairs are the neighbours among a module's children: ``conv`` and ``norm`` of a
    ``ConvBlock``, ``conv1`` and ``bn1`` of torchvision's ResNet, the first two of its
    ``Conv2dNormActivation`` and of its ``downsample``. A new encoder has to define them in the
    order in which they run.

    Args:
        model: is left as it is.

    Returns:
        The copy, in evaluation mode, without gradients.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(fused.modules()):
        for conv, norm_name, norm in _pairs(parent):
            _fold(conv, norm)
            setattr(parent, norm_name, nn.Identity())
    left = [name for name, layer in fused.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not left, f"no convolution stands right before {left}"
    return fused


def _pairs(parent: nn.Module) -> Iterator[tuple[nn.Conv2d, str, nn.BatchNorm2d]]:
    """A module's convolutions that a batch norm follows, with the norm's name."""
    for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert conv.out_channels == norm.num_features, f"{name} belongs to another convolution"
            yield conv, name, norm


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Multiply and shift a convolution's weights by a batch norm with trained statistics."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # (out,)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        shift += conv.bias.double() * scale
    weight = conv.weight.double() * scale[:, None, None, None]  # (out,) -> (out, 1, 1, 1)
    conv.weight.copy_(weight)  # into the same memory: channels-last stays
    conv.bias = nn.Parameter(shift.to(conv.weight), requires_grad=False)
