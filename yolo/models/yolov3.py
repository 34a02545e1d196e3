"""The YOLOv3 family: any encoder under YOLOv3's neck and head."""

from __future__ import annotations

import torch

from yolo.models.detector import Detector
from yolo.models.encoders.encoder import Encoder
from yolo.models.heads.yolov3 import YOLOv3Head
from yolo.models.layers import Normalise
from yolo.models.necks.yolov3 import NeckWidth, YOLOv3Neck


def yolov3(
    *,
    encoder: Encoder,
    classes: int,
    neck_width: NeckWidth = "paper",
    anchors_per_cell: int = 3,
) -> Detector:
    """Join an encoder with YOLOv3's neck and head.

    With Darknet-53, the paper's neck and 80 classes it is Darknet's ``yolov3.cfg``, to the
    parameter: 61,949,149.

    Args:
        encoder: gives the three maps and says how its input is normalised.
        classes: K.
        neck_width: see ``YOLOv3Neck``.
        anchors_per_cell: A.

    Returns:
        A detector in channels-last memory, in which convolutions are fastest.
    """
    neck = YOLOv3Neck(in_channels=encoder.out_channels, width=neck_width)
    detector = Detector(
        normalise=Normalise(mean=encoder.preprocessing.mean, std=encoder.preprocessing.std),
        encoder=encoder,
        neck=neck,
        head=YOLOv3Head(
            in_channels=neck.out_channels, anchors_per_cell=anchors_per_cell, classes=classes
        ),
    )
    return detector.to(memory_format=torch.channels_last)
