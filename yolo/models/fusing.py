"""Copies of a network that infer faster: batch norm inside its convolutions, shorter weights."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn

from yolo.models.detector import Detector

Model = TypeVar("Model", bound=nn.Module)


def fuse(model: Model) -> Model:
    """A copy for inference whose batch norms are part of the convolution before them, where one is.

    With running mean m and variance v, ``norm(conv(x)) = g * (W x + b - m) / sqrt(v + eps) + h``
    is a convolution with the weights ``W * g / sqrt(v + eps)``. They are computed in float64 and
    rounded once, so the outputs are the model's within float rounding. What was a batch norm is an
    ``nn.Identity``, so that all other layers keep their names.

    A pair is a convolution and a batch norm of its width that stand next to each other among a
    module's children: ``conv`` and ``norm`` of a ``ConvBlock``, ``conv1`` and ``bn1`` of a ResNet.
    So children have to stand in the order in which they run (see ``Encoder``). Any other batch
    norm, such as DenseNet's before its convolutions, stays as it is.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(fused.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            if conv.out_channels == norm.num_features and norm.affine and norm.track_running_stats:
                _fold(conv, norm)
                setattr(parent, name, nn.Identity())
    return fused


def cast_weights(detector: Detector, dtype: torch.dtype) -> Detector:
    """A copy with the weights in the format that autocast would cast them to at each pass.

    The normalisation stays in float32, as under autocast.
    """
    if dtype == torch.float32:
        return detector
    detector = copy.deepcopy(detector)
    for part in (detector.encoder, detector.neck, detector.head):
        part.to(dtype)
    return detector


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
