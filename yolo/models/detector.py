"""Whole networks: the detector, and the classifier that its encoder is pre-trained in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolo.models.encoders.encoder import Encoder
from yolo.models.layers import Normalise, Preprocessing


class Detector(nn.Module):
    """Images in, raw maps out. It never sees the truth; a coder turns its output into boxes.

    Its memory is channels-last, in which convolutions are fastest.

    Args:
        encoder, neck, head: made for each other's channels.
        preprocessing: of the images; None for the encoder's own.
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
        mean, std = preprocessing or encoder.preprocessing
        self.normalise = Normalise(mean=mean, std=std)
        self.encoder, self.neck, self.head = encoder, neck, head
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """uint8 (B, 3, S, S), RGB, S any multiple of 32 -> raw maps, the finest stride first.

        They are (B, A, S / stride, S / stride, 5 + K) each; of YOLOv1, which works at the size that
        it was built for, it is a single one, (B, S / 64, S / 64, boxes * 5 + K).
        """
        return self.head(self.neck(self.encoder(self.normalise(images))))


class Classifier(nn.Module):
    """Encoder, global average pooling of its map at stride 32, one number for each class.

    ``normalise`` and ``encoder`` are called as in the detector, so that one's weights fit the
    other. With 1000 classes it is, to the parameter, Darknet's classifier of the same name:
    41,609,928 in ``darknet53.cfg``, 20,842,376 in ``darknet19.cfg``. The last layer is a 1x1
    convolution as there; Darknet-19 and Extraction have it before the pooling, which changes
    nothing, for both are linear (Extraction's own, after a leaky activation, is not).

    Args:
        classes: K.
        dropout: share of the pooled numbers that training leaves out.
        preprocessing: of the images; None for the encoder's own.
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
        mean, std = preprocessing or encoder.preprocessing
        self.normalise = Normalise(mean=mean, std=std)
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
