"""YOLOv3's head: raw boxes, objectness and classes for every anchor at every scale."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from yolo.darknet.layer_records import Convolution, LayerList, Yolo
from yolo.models.heads.anchor_output import anchor_output, by_anchor
from yolo.models.layers import ConvBlock

OBJECTNESS_PRIOR = 0.01
"""The objectness that every box starts with."""


class YOLOv3Head(nn.Module):
    """Independent outputs (sections 2.1 to 2.3 of the paper), one per scale.

    YOLOv3 and YOLOv3-SPP have three, YOLOv3-tiny has two.

    Args:
        in_channels: channels of the neck's maps, fine to coarse.
        hidden_channels: of the 3x3 convolution at each scale.
        strides_px: their pixels per cell; they name the outputs, ``stride8`` and so on.
        anchors_per_cell: A; the paper's 3.
        classes: K.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        hidden_channels: Sequence[int],
        strides_px: Sequence[int],
        anchors_per_cell: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.anchors_per_cell = anchors_per_cell
        self.classes = classes
        self.names = [f"stride{stride}" for stride in strides_px]
        for name, channels, hidden in zip(self.names, in_channels, hidden_channels, strict=True):
            scale = ScaleHead(channels, hidden, anchors_per_cell=anchors_per_cell, classes=classes)
            self.add_module(name, scale)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Predict at every scale.

        Args:
            maps: the neck's, (B, C, H, W) each.

        Returns:
            Raw maps (B, A, H, W, 5 + K) in the same order.
        """
        return [self._scale(level)(x) for level, x in enumerate(maps)]

    def list_level(self, layers: LayerList, level: int) -> None:
        """Write one scale in Darknet's order, behind the neck's map."""
        scale, per_cell = self._scale(level), self.anchors_per_cell
        scale.conv.list_layers(layers)
        layers.add(Convolution(scale.output, norm=None, activation="linear"))
        mask = tuple(range(level * per_cell, (level + 1) * per_cell))
        layers.add(Yolo(mask=mask, anchors=per_cell * len(self.names), classes=self.classes))

    def _scale(self, level: int) -> ScaleHead:
        scale = self.get_submodule(self.names[level])
        assert isinstance(scale, ScaleHead)
        return scale


class ScaleHead(nn.Module):
    """One 3x3 convolution, one 1x1 to A * (5 + K) numbers per cell (see ``anchor_output``)."""

    def __init__(
        self, in_channels: int, hidden_channels: int, *, anchors_per_cell: int, classes: int
    ) -> None:
        super().__init__()
        self.anchors_per_cell = anchors_per_cell
        self.conv = ConvBlock(in_channels, hidden_channels, kernel_size=3)
        self.output = anchor_output(
            hidden_channels,
            anchors_per_cell=anchors_per_cell,
            classes=classes,
            objectness=OBJECTNESS_PRIOR,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, A, H, W, 5 + K)."""
        return by_anchor(self.output(self.conv(x)), self.anchors_per_cell)
