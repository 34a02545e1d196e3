"""Boxes on images, and several images on one. Images are uint8 (H, W, 3) RGB everywhere."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Detections, Sample

Colour = tuple[int, int, int]

_GOLDEN_RATIO = 0.618033988749895  # steps of it spread hues evenly, however many there are
_BRIGHTNESS = ((0.85, 1.0), (0.95, 0.7), (0.5, 1.0))  # saturation and value, taken in turns
_GAP_PX = 4  # between images that stand side by side


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


def side_by_side(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The truth on the left and the prediction on the right, each under its title."""
    return contact_sheet([_titled(truth, "truth"), _titled(prediction, "prediction")], columns=2)


def contact_sheet(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images of any sizes in rows of ``columns`` cells as large as the largest of them.

    Returns:
        uint8 (H, W, 3); each image is centred in its cell, the rest has the fill colour.
    """
    if not images or columns < 1:
        raise ValueError("a contact sheet needs at least one image and one column")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_h = max(image.shape[0] for image in images) + _GAP_PX
    cell_w = max(image.shape[1] for image in images) + _GAP_PX
    sheet = np.empty((rows * cell_h - _GAP_PX, columns * cell_w - _GAP_PX, 3), dtype=np.uint8)
    sheet[:] = FILL_COLOUR_RGB
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        top = i // columns * cell_h + (cell_h - _GAP_PX - height) // 2
        left = i % columns * cell_w + (cell_w - _GAP_PX - width) // 2
        sheet[top : top + height, left : left + width] = image
    return sheet


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an image whole or not at all, in the format that the path's suffix names.

    Raises:
        UserError: the suffix names no format, or the place cannot be written.
    """
    path = Path(path)
    try:
        ok, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        ok = False
    if not ok:
        raise UserError(
            f"{path}: an image cannot be written with the suffix {path.suffix!r}; "
            "name the file .png or .jpg."
        )
    try:
        _write_atomically(path, encoded.tobytes())
    except OSError as error:
        raise UserError(
            f"{path}: the image cannot be written ({error.strerror or error}); "
            "check the folder's permissions and the free space."
        ) from error


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    """Write each text on a patch of its colour, above its box or, at the upper edge, in it."""
    if not tags:
        return canvas
    height, width = canvas.shape[:2]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font = _font(_font_size_px(height, width))
    for text, box, colour in tags:
        text_w, text_h = _text_size(font, text)
        left = int(max(0, min(box[0], width - text_w)))
        top = int(box[1] - text_h if box[1] >= text_h else box[1])
        draw.rectangle((left, top, left + text_w - 1, top + text_h - 1), fill=colour)
        draw.text((left + 2, top + text_h // 2), text, _ink(colour), font, anchor="lm")
    return np.array(picture)


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """An image with a strip above it that bears a title."""
    height, width = image.shape[:2]
    font = _font(_font_size_px(height, width) + 2)
    strip = Image.new("RGB", (width, _text_size(font, title)[1] + 4), FILL_COLOUR_RGB)
    middle = (width // 2, strip.height // 2)
    ImageDraw.Draw(strip).text(middle, title, _ink(FILL_COLOUR_RGB), font, anchor="mm")
    return np.concatenate((np.array(strip), image))


def _font_size_px(height: int, width: int) -> int:
    return max(10, round(max(height, width) / 48))


def _text_size(font: ImageFont.FreeTypeFont, text: str) -> tuple[int, int]:
    """Width and height of a text with its margin, the height the same for every text."""
    ascent, descent = font.getmetrics()
    return round(font.getlength(text)) + 4, ascent + descent


@lru_cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font has no letter beyond ASCII."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size_px)


def _ink(background: Colour) -> Colour:
    """Black or white, whichever is easier to read (the luma weights of ITU-R BT.601)."""
    red, green, blue = background
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    return (0, 0, 0) if bright else (255, 255, 255)
