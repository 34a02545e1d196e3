"""The detector: what all versions of YOLO have in common."""

from __future__ import annotations

from torch import Tensor, nn

from yolo.models.encoders.encoder import Encoder
from yolo.models.layers import Normalise


class Detector(nn.Module):
    """Images in, raw maps out. It never sees the truth; a coder turns its output into boxes.

    Args:
        normalise: the first layer, with the encoder's mean and std.
        encoder: three maps, at strides 8, 16 and 32.
        neck: three maps of the same sizes.
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

    def forward(self, images: Tensor) -> list[Tensor]:
        """Predict.

        Args:
            images: uint8 (B, 3, S, S), RGB, 0..255, S any multiple of 32.

        Returns:
            Raw maps (B, A, S / stride, S / stride, 5 + K) at strides 8, 16 and 32.
        """
        maps = self.encoder(self.normalise(images))
        return self.head(self.neck(maps))
