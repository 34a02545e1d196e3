"""Whole networks: the detector, and the classifier that its encoder is pre-trained in.

And the two as lists of Darknet's layers, for reading and writing its files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from yolo.darknet.cfg import LayerList
from yolo.errors import UserError
from yolo.models.encoders import ENCODERS, Encoder
from yolo.models.layers import Normalise, Preprocessing
from yolo.models.necks import NECKS


class Detector(nn.Module):
    """Images in, raw maps out. It never sees the truth; a coder turns its output into boxes.

    Its memory is channels-last, in which convolutions are fastest. ``encoder``, ``neck`` and
    ``head`` are made for each other's channels; ``preprocessing`` is None for the encoder's own.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        neck: nn.Module,
        head: nn.Module,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(**(preprocessing or encoder.preprocessing)._asdict())
        self.encoder, self.neck, self.head = encoder, neck, head
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """uint8 (B, 3, S, S), RGB, S any multiple of 32 -> raw maps, the finest stride first.

        They are (B, A, S / stride, S / stride, 5 + K) each; of YOLOv1, which works at the size that
        it was built for, it is a single one, (B, S / 64, S / 64, boxes * 5 + K).
        """
        return self.head(self.neck(self.encoder(self.normalise(images))))


class Classifier(nn.Module):
    """Encoder, global average pooling of its map at stride 32, one number for each of K classes.

    ``normalise`` and ``encoder`` are called as in the detector, so that one's weights fit the
    other. With 1000 classes it is, to the parameter, Darknet's classifier of the same name:
    41,609,928 in ``darknet53.cfg``, 20,842,376 in ``darknet19.cfg``. The last layer is a 1x1
    convolution as there; Darknet-19 and Extraction have it before the pooling, which changes
    nothing, for both are linear (Extraction's own, after a leaky activation, is not).

    In training ``dropout`` is the share of the pooled numbers that is left out.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        classes: int,
        dropout: float = 0.0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(**(preprocessing or encoder.preprocessing)._asdict())
        self.encoder = encoder
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(encoder.out_channels[2], classes, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S), RGB, S any multiple of 32 -> (B, K), the logits of a softmax."""
        _, _, stride32 = self.encoder(self.normalise(images))
        pooled = self.dropout(self.pool(stride32))  # (B, C, H, W) -> (B, C, 1, 1)
        return self.head(pooled).flatten(1)  # (B, K, 1, 1) -> (B, K)


def list_encoder(encoder: Encoder) -> LayerList:
    """An encoder's layers in Darknet's order; a ``UserError`` where Darknet has no such layers."""
    layers = LayerList()
    _method(encoder, "list_layers", "encoder")(layers)
    return layers


def list_detector(detector: Detector) -> LayerList:
    """A detector's in the same way, where each level's head follows its part of the neck."""
    list_layers = _method(detector.encoder, "list_layers", "encoder")
    list_levels = _method(detector.neck, "list_levels", "neck")
    list_level = _method(detector.head, "list_level", "head")
    layers = LayerList()
    for level in list_levels(layers, list_layers(layers)):
        list_level(layers, level)
    return layers


def _method(part: nn.Module, name: str, kind: str) -> Callable[..., Any]:
    """What adds a part's layers to a list."""
    if method := getattr(part, name, None):
        return method
    encoders = (name for name, build in ENCODERS.items() if hasattr(build, "list_layers"))
    necks = (name for name, build in NECKS.items() if hasattr(build, "list_levels"))
    raise UserError(
        f"the {kind} {type(part).__name__} is not one that files of Darknet can hold here; they "
        f"can hold the encoders {', '.join(encoders)} with the necks {', '.join(necks)}"
    )
