"""Boxes with the names of their classes on an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from yolo.apps.report.drawing.lettering import Colour, font_size_px, ink, load_font, text_size
from yolo.records import Detections, Sample

_GOLDEN_RATIO = 0.618033988749895  # steps of it spread hues evenly, however many there are
_BRIGHTNESS = ((0.85, 1.0), (0.95, 0.7), (0.5, 1.0))  # saturation and value, taken in turns


def class_colour(label: int) -> Colour:
    """The RGB colour of a class: the same in every picture and every run."""
    saturation, value = _BRIGHTNESS[label % len(_BRIGHTNESS)]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    scores: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Draw boxes with their class names on a copy of an image.

    Args:
        image: uint8 (H, W, 3), RGB.
        boxes_xyxy_px: (N, 4), in pixels of ``image``; drawn in reverse, so the first is on top.
        labels: int (N,), indices into ``class_names``.
        class_names: any Unicode; what the font lacks shows as an empty box.
        scores: (N,), written behind the name.
        ignored: bool (N,), regions drawn hatched and dashed instead.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    boxes = _drawable(boxes_xyxy_px, image.shape[:2])
    order = [i for i in reversed(range(len(boxes))) if np.isfinite(boxes[i]).all()]
    skipped = np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored, bool)
    order.sort(key=lambda i: not skipped[i])  # ignored regions first, under everything else
    for i in order:
        draw = _draw_ignored if skipped[i] else _draw_box
        draw(canvas, boxes[i].round().astype(int).tolist(), class_colour(int(labels[i])))
    tags = []
    for i in order:
        text = " ".join(class_names[int(labels[i])].split())  # of one line
        text += "" if scores is None else f" {float(scores[i]):.2f}"
        text += " (ignored)" if skipped[i] else ""
        tags.append((text, boxes[i], class_colour(int(labels[i]))))
    return _write_tags(canvas, tags)


def draw_truth(sample: Sample, class_names: Sequence[str]) -> np.ndarray:
    """A sample's image with its truth: uint8 (H, W, 3)."""
    return draw_boxes(
        sample.image,
        sample.boxes_xyxy_px,
        sample.labels,
        class_names,
        ignored=sample.ignored,
    )


def draw_detections(
    image: np.ndarray, detections: Detections, class_names: Sequence[str]
) -> np.ndarray:
    """An image (H, W, 3) with what was found in it, boxes in its pixels."""
    return draw_boxes(
        image,
        detections.boxes_xyxy_px.detach().cpu().numpy(),
        detections.labels.cpu().numpy(),
        class_names,
        scores=detections.scores.detach().cpu().numpy(),
    )


def _drawable(boxes_xyxy_px: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Boxes (N, 4) with their lines inside the image."""
    height, width = size_hw
    boxes = np.array(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)  # (N, 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, boxes[:, :2])  # the last pixel inside the box
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width - 1)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height - 1)
    return boxes


def _thickness(canvas: np.ndarray) -> int:
    return max(1, round(max(canvas.shape[:2]) / 320))


def _draw_box(canvas: np.ndarray, box: list[int], colour: Colour) -> None:
    x1, y1, x2, y2 = box
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, _thickness(canvas))


def _draw_ignored(canvas: np.ndarray, box: list[int], colour: Colour) -> None:
    """Hatch a box faintly and dash its outline."""
    x1, y1, x2, y2 = box
    inside = canvas[y1 : y2 + 1, x1 : x2 + 1]
    height, width = inside.shape[:2]
    hatched = inside.copy()
    for offset in range(0, height + width, 8 * _thickness(canvas)):
        ends = (offset, 0), (offset - height, height)
        cv2.line(hatched, *ends, colour, _thickness(canvas), cv2.LINE_AA)
    inside[:] = cv2.addWeighted(hatched, 0.5, inside, 0.5, 0)
    corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        _draw_dashed(canvas, start, end, colour)


def _draw_dashed(
    canvas: np.ndarray, start: tuple[int, int], end: tuple[int, int], colour: Colour
) -> None:
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    along = np.array(end) - start
    dash = 5 * _thickness(canvas)
    for begin in range(0, length + 1, 2 * dash):
        ends = [start + along * min(at, length) // length for at in (begin, begin + dash)]
        cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), colour, _thickness(canvas))


def _write_tags(canvas: np.ndarray, tags: Sequence[tuple[str, np.ndarray, Colour]]) -> np.ndarray:
    """Write each text on a patch of its colour, above its box or, at the upper edge, in it.

    A box too small for that has its text below it.
    """
    if not tags:
        return canvas
    height, width = canvas.shape[:2]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font = load_font(font_size_px(height, width))
    for text, box, colour in tags:
        text_w, text_h = text_size(font, text)
        left = int(max(0, min(box[0], width - text_w)))
        top = int(box[1] - text_h if box[1] >= text_h else box[1])
        below = int(box[3]) + 2
        if box[1] < text_h and box[3] - box[1] < 2 * text_h and below + text_h <= height:
            top = below
        draw.rectangle((left, top, left + text_w - 1, top + text_h - 1), fill=colour)
        draw.text((left + 2, top + text_h // 2), text, ink(colour), font, anchor="lm")
    return np.array(picture)
