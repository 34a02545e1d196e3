"""Darknet-19, the encoder of YOLOv2 (https://arxiv.org/abs/1612.08242)."""

from __future__ import annotations

from yolo.models.encoders.pooled_stages import PooledStages

STAGES = (
    ((32, 3),),  # stride 1
    ((64, 3),),  # 2
    ((128, 3), (64, 1), (128, 3)),  # 4
    ((256, 3), (128, 1), (256, 3)),  # 8
    ((512, 3), (256, 1), (512, 3), (256, 1), (512, 3)),  # 16
    ((1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3)),  # 32
)
"""Channels and kernel size of the convolutions of each stage: table 6 of the paper."""


def darknet19() -> Darknet19:
    """Build the encoder with random weights."""
    return Darknet19()


class Darknet19(PooledStages):
    """Table 6 of the paper without its classifier and pooling: 18 convolutions.

    Its maps have 256, 512 and 1024 channels.
    """

    def __init__(self) -> None:
        super().__init__(STAGES)
