"""YOLOv2's head: raw boxes, objectness and classes for every anchor of one map."""

from __future__ import annotations

from torch import Tensor, nn

from yolo.darknet.layer_records import Convolution, LayerList, Region
from yolo.models.heads.anchor_output import anchor_output, by_anchor

OBJECTNESS_PRIOR = 0.1
"""The objectness that every box starts with.

It is learnt by squared error on the sigmoid, whose gradient fades with the sigmoid's slope s(1 - s)
at both ends. From YOLOv3's 0.01 a box with an object would learn nine times slower than from 0.1;
from Darknet's one half the many empty boxes would start with fourteen times the gradient.
"""


class YOLOv2Head(nn.Module):
    """One 1x1 convolution with bias (Darknet's ``yolov2.cfg``).

    Args:
        in_channels: channels of the neck's one map.
        anchors_per_cell: A; the paper's 5.
        classes: K.
    """

    def __init__(
        self, *, in_channels: tuple[int, ...], anchors_per_cell: int, classes: int
    ) -> None:
        super().__init__()
        (channels,) = in_channels
        self.anchors_per_cell = anchors_per_cell
        self.classes = classes
        self.output = anchor_output(
            channels,
            anchors_per_cell=anchors_per_cell,
            classes=classes,
            objectness=OBJECTNESS_PRIOR,
        )

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """Predict. One map (B, C, H, W) -> one raw map (B, A, H, W, 5 + K)."""
        (stride32,) = maps
        return [by_anchor(self.output(stride32), self.anchors_per_cell)]

    def list_level(self, layers: LayerList, level: int) -> None:
        """Write itself in Darknet's order, behind the neck's map."""
        assert level == 0
        layers.add(Convolution(self.output, norm=None, activation="linear"))
        layers.add(Region(anchors=self.anchors_per_cell, classes=self.classes, stride_px=32))
