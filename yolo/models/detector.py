"""The detector: what all versions of YOLO have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolo.models.encoders.encoder import Encoder
from yolo.models.layers import Normalise, Preprocessing


class Detector(nn.Module):
    """Images in, raw maps out. It never sees the truth; a coder turns its output into boxes.

    Args:
        normalise: the first layer, with the mean and std that the encoder's weights expect.
        encoder: three maps, at strides 8, 16 and 32.
        neck: one or more maps from these.
        head: raw predictions from each.
    """

    def __init__(
        self, *, normalise: Normalise, encoder: Encoder, neck: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.encoder = encoder
        self.neck = neck
        self.head = head

    @classmethod
    def join(
        cls,
        *,
        encoder: Encoder,
        neck: nn.Module,
        head: nn.Module,
        preprocessing: Preprocessing | None = None,
    ) -> Detector:
        """Put the parts together, in channels-last memory, in which convolutions are fastest.

        Args:
            encoder, neck, head: made for each other's channels.
            preprocessing: of the images; None for what the encoder says.
        """
        mean, std = preprocessing or encoder.preprocessing
        detector = cls(
            normalise=Normalise(mean=mean, std=std), encoder=encoder, neck=neck, head=head
        )
        return detector.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Predict.

        Args:
            images: uint8 (B, 3, S, S), RGB, 0..255, S any multiple of 32 (a YOLOv1 head works at
                the size that it was built for).

        Returns:
            Raw maps from the finest stride to the coarsest: (B, A, S / stride, S / stride, 5 + K)
            each; of YOLOv1 a single one, (B, S / 64, S / 64, boxes * 5 + K).
        """
        maps = self.encoder(self.normalise(images))
        return self.head(self.neck(maps))
