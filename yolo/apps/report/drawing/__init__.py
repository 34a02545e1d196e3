"""Boxes on images, and several images on one. Images are uint8 (H, W, 3) RGB everywhere."""

from yolo.apps.report.drawing.boxes import class_colour, draw_boxes, draw_detections, draw_truth
from yolo.apps.report.drawing.evaluation import EvaluationPictures
from yolo.apps.report.drawing.files import save_image
from yolo.apps.report.drawing.sheets import (
    contact_sheet,
    count_boxes,
    draw_tile,
    side_by_side,
    write_sheets,
)

__all__ = [
    "EvaluationPictures",
    "class_colour",
    "contact_sheet",
    "count_boxes",
    "draw_boxes",
    "draw_detections",
    "draw_tile",
    "draw_truth",
    "save_image",
    "side_by_side",
    "write_sheets",
]
