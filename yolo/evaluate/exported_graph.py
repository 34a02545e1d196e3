"""What is exported: images in, boxes and scores out, in one module."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from yolo.models.detector import Detector
from yolo.models.fusing import fuse

ExportPrecision = Literal["fp32", "fp16"]

MULTIPLE_PX = 32
"""Height and width of images are multiples of it."""


class ExportGraph(nn.Module):
    """Normalisation, fused network and decoding.

    In fp16 the convolutions and their weights are float16; the normalisation before them and the
    decoding behind them stay float32, for float16 knows no fractions of pixels beyond 1024.

    Args:
        detector: is left as it is.
        coder: its raw maps to boxes and scores.
        precision: of encoder, neck and head.
    """

    def __init__(self, detector: Detector, coder: nn.Module, *, precision: ExportPrecision) -> None:
        super().__init__()
        detector = fuse(detector)
        self.normalise = detector.normalise
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        layers = (detector.encoder, detector.neck, detector.head)
        self.encoder, self.neck, self.head = (layer.to(self.dtype) for layer in layers)
        self.coder = copy.deepcopy(coder)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            images: uint8 or float32 (B, 3, H, W), RGB, 0..255.

        Returns:
            Boxes float32 (B, N, 4), xyxy in pixels of the images, and scores float32 (B, N, K).
        """
        pixels = self.normalise(images).to(self.dtype)
        return self.coder(self.head(self.neck(self.encoder(pixels))))


def example_images(size_px: int, *, float_input: bool) -> Tensor:
    """Two images of noise to trace with: one alone would be taken for a constant batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, size_px, size_px), dtype=torch.uint8, generator=generator)
    return images.float() if float_input else images
