"""Extraction, the encoder of YOLOv1 (https://arxiv.org/abs/1506.02640)."""

from __future__ import annotations

from yolo.models.encoders.pooled_stages import PooledStages

STAGES = (
    ((64, 7),),  # stride 2, of the convolution itself
    ((192, 3),),  # 4
    ((128, 1), (256, 3), (256, 1), (512, 3)),  # 8
    (*((256, 1), (512, 3)) * 4, (512, 1), (1024, 3)),  # 16
    ((512, 1), (1024, 3), (512, 1), (1024, 3)),  # 32
)
"""Channels and kernel size of the convolutions of each stage: figure 3 of the paper."""


def extraction() -> Extraction:
    """Build the encoder with random weights."""
    return Extraction()


class Extraction(PooledStages):
    """The first 20 convolutions of figure 3, which the paper trains on ImageNet first.

    Batch normalised as in Darknet's ``extraction.cfg`` and ``yolov1.cfg``; the paper's own were
    not. Its maps have 512, 1024 and 1024 channels.
    """

    def __init__(self) -> None:
        super().__init__(STAGES, first_stride=2)
