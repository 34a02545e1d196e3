"""YOLOv3's head: raw boxes, objectness and classes for every anchor at every scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from yolo.models.layers import ConvBlock

BOX_FIELDS = 5
"""x, y, w, h, objectness: what stands before the classes, in Darknet's order."""

OBJECTNESS = 4
"""Index of the objectness among them."""

OBJECTNESS_PRIOR = 0.01
"""The objectness that every box starts with."""


class YOLOv3Head(nn.Module):
    """Three independent outputs (sections 2.1 to 2.3 of the paper), one per scale.

    Args:
        in_channels: channels of the neck's maps at strides 8, 16 and 32.
        anchors_per_cell: A; the paper's 3.
        classes: K.
    """

    def __init__(
        self, *, in_channels: tuple[int, int, int], anchors_per_cell: int, classes: int
    ) -> None:
        super().__init__()
        self.stride8, self.stride16, self.stride32 = (
            ScaleHead(in_channels=channels, anchors_per_cell=anchors_per_cell, classes=classes)
            for channels in in_channels
        )

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        """Predict at every scale.

        Args:
            maps: the neck's, (B, C, H, W) at strides 8, 16 and 32.

        Returns:
            Raw maps (B, A, H, W, 5 + K) in the same order.
        """
        out8, out16, out32 = maps
        return [self.stride8(out8), self.stride16(out16), self.stride32(out32)]


class ScaleHead(nn.Module):
    """One 3x3 convolution to twice the channels, one 1x1 to A * (5 + K) numbers per cell.

    Darknet starts the last layer like all others, and without bias: about half of some 10,000 boxes
    per image then begin as objects, and unlearning that is all that the first steps do. Here every
    box starts close to its anchor, at the centre of its cell, with an objectness of 0.01: small
    weights and a bias, after the RetinaNet paper (https://arxiv.org/abs/1708.02002, section 4.1).
    """

    def __init__(self, *, in_channels: int, anchors_per_cell: int, classes: int) -> None:
        super().__init__()
        self.anchors_per_cell = anchors_per_cell
        self.fields = BOX_FIELDS + classes
        self.conv = ConvBlock(in_channels, 2 * in_channels, kernel_size=3)
        self.output = nn.Conv2d(2 * in_channels, anchors_per_cell * self.fields, kernel_size=1)
        self._start_without_objects()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, A, H, W, 5 + K).

        The channels hold one anchor after the other, as Darknet's do. The result is a view: for
        channels-last memory each box's numbers lie side by side.
        """
        raw = self.output(self.conv(x))  # (B, A * (5 + K), H, W)
        raw = raw.unflatten(1, (self.anchors_per_cell, self.fields))  # (B, A, 5 + K, H, W)
        return raw.permute(0, 1, 3, 4, 2)  # (B, A, H, W, 5 + K)

    def _start_without_objects(self) -> None:
        nn.init.normal_(self.output.weight, std=0.01)
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias.zero_()
            bias = self.output.bias.view(self.anchors_per_cell, self.fields)  # (A, 5 + K)
            bias[:, OBJECTNESS] = -math.log(1 / OBJECTNESS_PRIOR - 1)
