"""Test-time augmentation: boxes found in an image as it is, mirrored and at other sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from yolo.detection.coders import GridCoder

SCALES = (0.83, 1.0, 1.17)
"""Sides of the network's input, relative to its own; a YOLOv1 works at its own alone."""

_MULTIPLE_PX = 32


class AugmentedDetector(nn.Module):
    """A detector and its coder, run at each scale on the images as they are and mirrored.

    The boxes of all passes are for one suppression together.
    """

    def __init__(self, detector: nn.Module, coder: nn.Module) -> None:
        super().__init__()
        self.detector, self.coder = detector, coder
        self.scales = (1.0,) if isinstance(coder, GridCoder) else SCALES

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) -> boxes (B, N, 4), xyxy in their pixels, and scores (B, N, K).

        Sides are rounded to multiples of 32; scales that come to the same side are one.
        """
        size_px = images.shape[-1]
        sides_px = {round(size_px * scale / _MULTIPLE_PX) * _MULTIPLE_PX for scale in self.scales}
        boxes, scores = [], []
        for side_px in sorted(sides_px):
            scaled, size_hw = images, (side_px, side_px)
            if side_px != size_px:
                scaled = functional.interpolate(
                    images.float(), size_hw, mode="bilinear", antialias=True
                )
            for mirrored in (False, True):
                found, score = self.coder(self.detector(scaled.flip(3) if mirrored else scaled))
                if mirrored:
                    left, top, right, bottom = found.unbind(dim=2)
                    found = torch.stack((side_px - right, top, side_px - left, bottom), dim=2)
                boxes.append(found * (size_px / side_px))
                scores.append(score)
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
