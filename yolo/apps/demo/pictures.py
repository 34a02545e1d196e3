"""Pictures of strangers: which are accepted, and what the page shows of them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from yolo.apps.predict import Predictor
from yolo.apps.report.drawing import draw_boxes, save_image
from yolo.data.formats.shapes_drawing import draw_scene
from yolo.data.images import decode
from yolo.errors import UserError

LARGEST_UPLOAD_MIB = 20
LARGEST_PICTURE_PX = 50_000_000
"""A telephone's largest pictures pass; decoded, this is 150 MB."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Pillow's names of the formats that are accepted; no other reader of its is tried."""

LONGEST_SHOWN_SIDE_PX = 1600

TABLE_COLUMNS = ("class", "score", "left", "top", "width", "height")
"""Boxes are in pixels of the uploaded picture."""

Row = tuple[str, float, int, int, int, int]

Overlay = tuple[np.ndarray, str]
"""A picture uint8 (H, W, 3), RGB, and its caption."""


class Views:
    """What the page shows of a picture.

    `explain` draws what the network looks at: image uint8 (H, W, 3), RGB -> one overlay per scale.
    """

    def __init__(
        self, predictor: Predictor, explain: Callable[[np.ndarray], Sequence[Overlay]]
    ) -> None:
        self._predictor = predictor
        self.class_names = list(predictor.class_names)
        self._explain = explain

    def boxes(self, image: np.ndarray, conf: float, iou: float) -> tuple[np.ndarray, list[Row]]:
        """Find objects in an image, uint8 (H, W, 3), RGB.

        Returns:
            The picture with boxes and names, at most 1,600 px long; and the table's rows, the best
            score first.
        """
        for name, value in (("confidence", conf), ("IoU", iou)):  # a browser may send anything
            if not (isinstance(value, int | float) and 0 <= value <= 1):
                raise UserError(f"{name}: must be a number from 0 to 1.")
        found = self._predictor([image], conf=float(conf), iou=float(iou))[0].detections
        boxes_xyxy_px = found.boxes_xyxy_px.numpy()
        labels, scores = found.labels.numpy(), found.scores.numpy()
        shown, names = shrink(image), self.class_names
        scale_wh = np.divide(shown.shape[1::-1], image.shape[1::-1])
        shown_boxes = boxes_xyxy_px * np.tile(scale_wh, 2)
        drawn = draw_boxes(shown, shown_boxes, labels, names, scores=scores)
        rows: list[Row] = []
        found_boxes = zip(labels, scores.tolist(), boxes_xyxy_px.tolist(), strict=True)
        for label, score, (left, top, right, bottom) in found_boxes:
            size = round(right - left), round(bottom - top)
            rows.append((names[label], round(score, 3), round(left), round(top), *size))
        return drawn, rows

    def maps(self, image: np.ndarray) -> list[Overlay]:
        """What the network looks at, for each scale, on the picture shown at most 1,600 px long."""
        return list(self._explain(shrink(image)))


def read_picture(path: Path) -> np.ndarray:
    """Read an uploaded picture as uint8 (H, W, 3), RGB, if size, format and pixels are acceptable.

    Errors name the file without its folder.
    """
    try:
        _check_size(path)
        _check_header(path)
        return decode(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise UserError(f"the picture {path} is gone: upload it again.") from None
    if size > LARGEST_UPLOAD_MIB * 2**20:
        raise UserError(
            f"the picture {path} has {size / 2**20:.0f} MiB, at most {LARGEST_UPLOAD_MIB} "
            "are allowed."
        )


def _check_header(path: Path) -> None:
    """Format and number of pixels, from the first bytes only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                is_large = math.prod(image.size) > LARGEST_PICTURE_PX
    except Image.DecompressionBombError:  # more than Pillow itself allows
        is_large = True
    except Exception:  # readers of damaged headers raise nearly anything
        raise UserError(
            f"the file {path} is no picture that can be read: choose a "
            f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} file."
        ) from None
    if is_large:
        raise UserError(
            f"the picture {path} has more than {LARGEST_PICTURE_PX // 10**6} million pixels: "
            "make it smaller first."
        )


def shrink(image: np.ndarray, longest_side_px: int = LONGEST_SHOWN_SIDE_PX) -> np.ndarray:
    """An image (H, W, 3) made to have sides of at most ``longest_side_px``."""
    height, width = image.shape[:2]
    scale = longest_side_px / max(height, width)
    if scale >= 1:
        return image
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)


def write_examples(folder: Path, count: int = 6) -> Sequence[Path]:
    """Draw pictures of the shapes data set, each with several shapes, as JPEG files."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = (draw_scene(np.random.default_rng((0, 1, seed))) for seed in itertools.count())
    full = (scene for scene in scenes if len(scene.annotations) >= 3)
    paths = [folder / f"shapes_{number}.jpg" for number in range(1, count + 1)]
    for path, scene in zip(paths, full, strict=False):
        save_image(path, scene.image)
    return paths
