"""The last layer of every head with anchors (YOLOv2, YOLOv3): how it starts, how it is read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from yolo.darknet.layer_records import BOX_FIELDS

OBJECTNESS = 4
"""Index of the objectness among the numbers of a box, which stand in Darknet's order."""


def anchor_output(
    in_channels: int, *, anchors_per_cell: int, classes: int, objectness: float
) -> nn.Conv2d:
    """A 1x1 convolution with bias to A * (5 + K) numbers per cell.

    Darknet starts this layer like all others, and without bias: about half of all boxes then begin
    as objects, and unlearning that is all that the first steps do. Here every box starts close to
    its anchor, at the centre of its cell, with one low objectness: small weights and a bias, after
    the RetinaNet paper (https://arxiv.org/abs/1708.02002, section 4.1).

    Args:
        in_channels: channels of the map.
        anchors_per_cell: A.
        classes: K.
        objectness: what every box starts with, between 0 and 1.
    """
    fields = BOX_FIELDS + classes
    conv = nn.Conv2d(in_channels, anchors_per_cell * fields, kernel_size=1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias.zero_()
        conv.bias.view(anchors_per_cell, fields)[:, OBJECTNESS] = -math.log(1 / objectness - 1)
    return conv


def by_anchor(channels: Tensor, anchors_per_cell: int) -> Tensor:
    """What the layer says, box by box. (B, A * (5 + K), H, W) -> (B, A, H, W, 5 + K).

    The channels hold one anchor after the other, as Darknet's do. The result is a view: for
    channels-last memory each box's numbers lie side by side.
    """
    raw = channels.unflatten(1, (anchors_per_cell, -1))  # (B, A, 5 + K, H, W)
    return raw.permute(0, 1, 3, 4, 2)  # (B, A, H, W, 5 + K)
