"""What is exported, images in, boxes and scores out, as one module; and this as TorchScript."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.jit import TracerWarning

from yolo.evaluate.exported import METADATA_FILE, ExportMetadata
from yolo.models.detector import Detector
from yolo.models.fusing import fuse


class ExportGraph(nn.Module):
    """Normalisation, fused network and decoding.

    With ``half`` the convolutions and their weights are float16; the normalisation before them and
    the decoding behind them stay float32, for float16 knows no fractions of pixels beyond 1024.

    Args:
        detector: is left as it is.
        coder: its raw maps to boxes and scores.
        half: encoder, neck and head in float16.
    """

    def __init__(self, detector: Detector, coder: nn.Module, *, half: bool) -> None:
        super().__init__()
        detector = fuse(detector)
        self.normalise = detector.normalise
        self.dtype = torch.float16 if half else torch.float32
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


def example_images(metadata: ExportMetadata) -> Tensor:
    """Two images of noise to trace with: one alone would be taken for a constant batch."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, metadata.image_size_px, metadata.image_size_px)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return images.float() if metadata.float_input else images


def write_torchscript(path: Path, graph: ExportGraph, metadata: ExportMetadata) -> None:
    """Trace the graph and write it with its metadata.

    Sizes of images are read from them, so the file itself takes any that the network takes; whether
    that was checked is what ``metadata.dynamic_size`` records.
    """
    entries = {METADATA_FILE: json.dumps(metadata.to_metadata())}
    with warnings.catch_warnings(), torch.inference_mode():
        # the checks of a YOLOv1's sizes become constants, which is what they are
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", FutureWarning)  # torch would have torch.export instead
        traced = torch.jit.trace(graph, (example_images(metadata),), check_trace=False)
        torch.jit.save(traced, path, _extra_files=entries)
