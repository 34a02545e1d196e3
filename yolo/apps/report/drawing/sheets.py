"""Pictures that are parts of larger ones: pairs, and tiles on contact sheets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np

from yolo.apps.report.drawing.boxes import draw_boxes
from yolo.apps.report.drawing.files import save_image
from yolo.apps.report.drawing.lettering import titled
from yolo.letterbox import FILL_COLOUR_RGB

_GAP_PX = 4  # between images that stand side by side
_LEAST_BOX_PX = 9  # of a tile: smaller ones are drawn larger, or they would be one dot


def side_by_side(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The truth on the left and the prediction on the right, each under its title."""
    return contact_sheet([titled(truth, "truth"), titled(prediction, "prediction")], columns=2)


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

    Args:
        image, boxes_xyxy_px, labels, class_names, scores, ignored: as ``draw_boxes``.
        side_px: of the longer side of the scaled image, and the width of the whole.
        title: cut at its start where it is too long.

    Returns:
        uint8 (H, side_px, 3).
    """
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    scaled_h, scaled_w = max(1, round(height * scale)), max(1, round(width * scale))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    scaled = cv2.resize(image, (scaled_w, scaled_h), interpolation=smooth)
    canvas = np.empty((max(scaled_h, side_px // 6), side_px, 3), np.uint8)
    canvas[:] = FILL_COLOUR_RGB
    top, left = (canvas.shape[0] - scaled_h) // 2, (side_px - scaled_w) // 2
    canvas[top : top + scaled_h, left : left + scaled_w] = scaled
    factors = np.tile([scaled_w / width, scaled_h / height], 2)
    boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4) * factors + [left, top, left, top]
    drawn = draw_boxes(canvas, _seen(boxes), labels, class_names, scores=scores, ignored=ignored)
    return titled(drawn, title)


def _seen(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """Boxes (N, 4), the sides of small ones grown to what can be seen."""
    low, high = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]
    centre, half = (low + high) / 2, np.maximum(high - low, _LEAST_BOX_PX) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def count_boxes(ignored: np.ndarray) -> str:
    """How many boxes there are: "5 boxes, 1 ignored" of ignored flags bool (6,)."""
    regions = int(ignored.sum())
    boxes = len(ignored) - regions
    return f"{boxes} box{'' if boxes == 1 else 'es'}" + (f", {regions} ignored" if regions else "")


def write_sheets(
    tiles: Iterable[np.ndarray], folder: Path, *, columns: int, per_sheet: int
) -> Iterator[Path]:
    """Write contact sheets ``sheet_01.jpg``, ... and yield the path of each once it is there.

    Raises:
        UserError: a sheet cannot be written.
    """
    remaining = iter(tiles)
    for number in count(1):
        some = list(islice(remaining, per_sheet))
        if not some:
            return
        path = folder / f"sheet_{number:02d}.jpg"
        save_image(path, contact_sheet(some, columns))
        yield path
