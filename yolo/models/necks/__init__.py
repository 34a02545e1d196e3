"""Necks: mix an encoder's maps across scales. The closed set of them that a config may name."""

from __future__ import annotations

from collections.abc import Callable

from yolo.models.necks.neck import Neck
from yolo.models.necks.yolov1 import YOLOv1Neck
from yolo.models.necks.yolov2 import YOLOv2Neck
from yolo.models.necks.yolov3 import YOLOv3Neck, YOLOv3SPPNeck
from yolo.models.necks.yolov3_tiny import YOLOv3TinyNeck

NECKS: dict[str, Callable[..., Neck]] = {
    "yolov3": YOLOv3Neck,
    "yolov3_spp": YOLOv3SPPNeck,
    "yolov3_tiny": YOLOv3TinyNeck,
    "yolov2": YOLOv2Neck,
    "yolov1": YOLOv1Neck,
}
"""``type`` in a config -> the class; each takes ``in_channels`` and ``width``, and tells
``out_channels`` and ``strides_px`` of the maps that it returns."""

__all__ = ["NECKS", "Neck"]
