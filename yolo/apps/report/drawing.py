"""Boxes on images, several images on one, and pictures as files.

Images are uint8 (H, W, 3) RGB everywhere; coordinates are pixels of the image that is drawn on.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from yolo.errors import UserError
from yolo.files import write_or_refuse
from yolo.letterbox import FILL_COLOUR_RGB, Letterbox
from yolo.records import Detections, Sample

Colour = tuple[int, int, int]

_GOLDEN_RATIO = 0.618033988749895  # steps of it spread hues evenly, however many there are
_BRIGHTNESS = ((0.85, 1.0), (0.95, 0.7), (0.5, 1.0))  # saturation and value, taken in turns
_GAP_PX = 4  # between images that stand side by side
_LEAST_BOX_PX = 9  # of a tile: smaller ones are drawn larger, or they would be one dot
_LONGEST_PX = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # that the format can hold


def class_colour(label: int) -> Colour:
    """The RGB colour of a class: the same in every picture and every run."""
    saturation, value = _BRIGHTNESS[label % len(_BRIGHTNESS)]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: np.ndarray,
    boxes_xyxy_px: np.ndarray,  # (N, 4); drawn in reverse, so that the first is on top
    labels: np.ndarray,  # int (N,), indices into the names
    class_names: Sequence[str] | Mapping[int, str],  # Unicode; what the font lacks is an empty box
    *,
    scores: np.ndarray | None = None,  # (N,), written behind the name
    ignored: np.ndarray | None = None,  # bool (N,), regions drawn hatched and dashed instead
) -> np.ndarray:
    """Draw boxes with their class names on a copy of an image."""
    canvas = np.ascontiguousarray(image).copy()
    boxes = _inside(boxes_xyxy_px, image.shape[:2])
    skipped = np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored, bool)
    order = [i for i in reversed(range(len(boxes))) if np.isfinite(boxes[i]).all()]
    order.sort(key=lambda i: not skipped[i])  # ignored regions first, under everything else
    tags = []
    for i in order:
        colour = class_colour(int(labels[i]))
        x1, y1, x2, y2 = corners = boxes[i].round().astype(int).tolist()
        if skipped[i]:
            _draw_ignored(canvas, corners, colour)
        else:
            cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, _thickness(canvas))
        text = " ".join(class_names[int(labels[i])].split())  # of one line
        text += "" if scores is None else f" {float(scores[i]):.2f}"
        tags.append((text + (" (ignored)" if skipped[i] else ""), boxes[i], colour))
    return _write_tags(canvas, tags) if tags else canvas


def draw_detections(
    image: np.ndarray, detections: Detections, class_names: Sequence[str] | Mapping[int, str]
) -> np.ndarray:
    tensors = detections.boxes_xyxy_px, detections.labels, detections.scores
    boxes, labels, scores = (tensor.detach().cpu().numpy() for tensor in tensors)
    return draw_boxes(image, boxes, labels, class_names, scores=scores)


class EvaluationPictures:
    """Draws the truth on the left and what was found on the right, for the pictures of a run."""

    def draw(self, truth: Sample, found: Detections, class_names: Sequence[str]) -> np.ndarray:
        boxes, labels = truth.boxes_xyxy_px, truth.labels
        left = draw_boxes(truth.image, boxes, labels, class_names, ignored=truth.ignored)
        right = draw_detections(truth.image, found, class_names)
        return contact_sheet([_titled(left, "truth"), _titled(right, "prediction")], columns=2)

    def save(self, path: Path, pictures: Sequence[np.ndarray]) -> None:
        save_image(path, contact_sheet(pictures, columns=2))


def draw_tile(
    image: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    side_px: int,
    title: str,
    scores: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """An image of any size as one of a sheet: scaled to show its boxes, under its title.

    A small image is enlarged pixel by pixel. A narrow one gets room at its sides, where the names
    of its classes fit. Boxes too small to be seen are drawn larger, around their centre.

    ``side_px`` is the longer side of the scaled image and the width of the whole; a title that is
    too long is cut at its start; the others are as in ``draw_boxes``.
    """
    height, width = image.shape[:2]
    scaled_h, scaled_w = Letterbox.fit((height, width), side_px).scaled_hw
    smooth = cv2.INTER_AREA if side_px < max(height, width) else cv2.INTER_NEAREST
    scaled = cv2.resize(image, (scaled_w, scaled_h), interpolation=smooth)
    canvas = np.full((max(scaled_h, side_px // 6), side_px, 3), FILL_COLOUR_RGB, np.uint8)
    top, left = (canvas.shape[0] - scaled_h) // 2, (side_px - scaled_w) // 2
    canvas[top : top + scaled_h, left : left + scaled_w] = scaled
    factors = np.tile([scaled_w / width, scaled_h / height], 2)
    boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4) * factors + [left, top, left, top]
    low, high = boxes[:, :2], boxes[:, 2:]
    centre, half = (low + high) / 2, np.maximum(high - low, _LEAST_BOX_PX) / 2
    seen = np.concatenate([centre - half, centre + half], axis=1)  # (N, 4)
    drawn = draw_boxes(canvas, seen, labels, class_names, scores=scores, ignored=ignored)
    return _titled(drawn, title)


def shrink(image: np.ndarray, longest_px: int) -> np.ndarray:
    """An image (H, W, 3) made to have sides of at most ``longest_px``."""
    factor = longest_px / max(image.shape[:2])
    if factor >= 1:
        return image
    size_wh = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)


def count_boxes(ignored: np.ndarray) -> str:
    """How many boxes there are: "5 boxes, 1 ignored" of ignored flags bool (6,)."""
    regions = int(ignored.sum())
    boxes = len(ignored) - regions
    return f"{boxes} box{'' if boxes == 1 else 'es'}" + (f", {regions} ignored" if regions else "")


def contact_sheet(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images of any sizes, centred in rows of ``columns`` cells as large as the largest of them."""
    if not images or columns < 1:
        raise ValueError("a contact sheet needs at least one image and one column")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_h = max(image.shape[0] for image in images) + _GAP_PX
    cell_w = max(image.shape[1] for image in images) + _GAP_PX
    height, width = rows * cell_h - _GAP_PX, columns * cell_w - _GAP_PX
    sheet = np.full((height, width, 3), FILL_COLOUR_RGB, np.uint8)
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        top = i // columns * cell_h + (cell_h - _GAP_PX - height) // 2
        left = i % columns * cell_w + (cell_w - _GAP_PX - width) // 2
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_sheets(
    tiles: Iterable[np.ndarray], folder: Path, *, columns: int, per_sheet: int
) -> Iterator[Path]:
    """Write contact sheets ``sheet_01.jpg``, ... and yield the path of each once it is there."""
    remaining = iter(tiles)
    groups = iter(lambda: list(islice(remaining, per_sheet)), [])
    for number, some in enumerate(groups, start=1):
        path = folder / f"sheet_{number:02d}.jpg"
        save_image(path, contact_sheet(some, columns))
        yield path


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an image whole or not at all, in the format that the path's suffix names.

    One that is too large for the format is shrunk.
    """
    image = shrink(image, _LONGEST_PX.get(path.suffix.lower(), max(image.shape)))
    try:
        ok, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        ok = False
    if not ok:
        raise UserError(
            f"{path}: an image cannot be written with the suffix {path.suffix!r}; "
            "name the file .png or .jpg."
        )
    remedy = "check the folder's permissions and the free space."
    write_or_refuse("the image", path, encoded.tobytes(), remedy=remedy)


def _inside(boxes_xyxy_px: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Boxes (N, 4) with their lines inside the image."""
    height, width = size_hw
    boxes = np.array(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)  # (N, 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, boxes[:, :2])  # the last pixel inside the box
    return boxes.clip(0, np.tile([width - 1, height - 1], 2))


def _thickness(canvas: np.ndarray) -> int:
    return max(1, round(max(canvas.shape[:2]) / 320))


def _draw_ignored(canvas: np.ndarray, box: list[int], colour: Colour) -> None:
    """Hatch a box faintly and dash its outline."""
    x1, y1, x2, y2 = box
    inside = canvas[y1 : y2 + 1, x1 : x2 + 1]
    height, width = inside.shape[:2]
    hatched = inside.copy()
    for offset in range(0, height + width, 8 * _thickness(canvas)):
        left, right = (offset, 0), (offset - height, height)
        cv2.line(hatched, left, right, colour, _thickness(canvas), cv2.LINE_AA)
    inside[:] = cv2.addWeighted(hatched, 0.5, inside, 0.5, 0)
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    dash = 5 * _thickness(canvas)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along, length = end - start, max(abs(end - start).max(), 1)
        for begin in range(0, length + 1, 2 * dash):
            ends = [start + along * min(at, length) // length for at in (begin, begin + dash)]
            cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), colour, _thickness(canvas))


def _write_tags(canvas: np.ndarray, tags: Sequence[tuple[str, np.ndarray, Colour]]) -> np.ndarray:
    """Write each text above its box or, at the upper edge, in it, or below it if it is small."""
    height, width = canvas.shape[:2]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font = _load_font(_font_size_px(canvas))
    for text, box, colour in tags:
        text_w, text_h = _text_size(font, text)
        left = int(max(0, min(box[0], width - text_w)))
        top = int(box[1] - text_h if box[1] >= text_h else box[1])
        below = int(box[3]) + 2
        if box[1] < text_h and box[3] - box[1] < 2 * text_h and below + text_h <= height:
            top = below
        draw.rectangle((left, top, left + text_w - 1, top + text_h - 1), fill=colour)
        draw.text((left + 2, top + text_h // 2), text, _ink(colour), font, anchor="lm")
    return np.array(picture)


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """An image below a strip with a title: of one too long the end, where paths differ."""
    width, font = image.shape[1], _load_font(_font_size_px(image) + 2)
    candidates = (title, *(f"…{title[start:]}" for start in range(1, len(title))))
    title = next((some for some in candidates if _text_size(font, some)[0] <= width), "")
    strip = Image.new("RGB", (width, _text_size(font, title)[1] + 4), FILL_COLOUR_RGB)
    middle = (width // 2, strip.height // 2)
    ImageDraw.Draw(strip).text(middle, title, _ink(FILL_COLOUR_RGB), font, anchor="mm")
    return np.concatenate((np.array(strip), image))


def _font_size_px(image: np.ndarray) -> int:
    return max(10, round(max(image.shape[:2]) / 48))


def _text_size(font: ImageFont.FreeTypeFont, text: str) -> tuple[int, int]:
    """Width and height of a text with its margin, the height the same for every text."""
    ascent, descent = font.getmetrics()
    return round(font.getlength(text)) + 4, ascent + descent


@lru_cache
def _load_font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font has no letter beyond ASCII."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size_px)


def _ink(background: Colour) -> Colour:
    """Black or white, whichever is easier to read (the luma weights of ITU-R BT.601)."""
    red, green, blue = background
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    return (0, 0, 0) if bright else (255, 255, 255)
