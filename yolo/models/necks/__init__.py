"""Necks: mix an encoder's maps across scales. The closed set of them that a config may name."""

from __future__ import annotations

from collections.abc import Callable

from yolo.models.necks.neck import Neck
from yolo.models.necks.yolov1 import YOLOv1Neck
from yolo.models.necks.yolov2 import YOLOv2Neck
from yolo.models.necks.yolov3 import YOLOv3Neck, YOLOv3SPPNeck, YOLOv3TinyNeck

NECKS: dict[str, Callable[..., Neck]] = {
    "yolov3": YOLOv3Neck,
    "yolov3_spp": YOLOv3SPPNeck,
    "yolov3_tiny": YOLOv3TinyNeck,
    "yolov2": YOLOv2Neck,
    "yolov1": YOLOv1Neck,
}
"""``type`` in a config -> the class; each takes ``in_channels`` and ``width``."""

__all__ = ["NECKS", "Neck"]
