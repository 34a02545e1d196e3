"""Pictures of strangers: which are accepted, and what the page shows of them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from yolo.apps.predict import Predictor
from yolo.apps.report.drawing import draw_detections, save_image, shrink
from yolo.config.wording import joined
from yolo.data.formats.shapes_drawing import draw_scene
from yolo.data.images import decode
from yolo.errors import UserError

LARGEST_UPLOAD_MIB = 20
LARGEST_PICTURE_PX = 50_000_000  # a telephone's largest pass; decoded, this is 150 MB
LONGEST_SHOWN_SIDE_PX = 1600

FORMATS = ["JPEG", "PNG", "WEBP", "BMP"]
"""Pillow's names of the formats that are accepted; no other reader of its is tried."""

TABLE_COLUMNS = ("class", "score", "left", "top", "width", "height")
Row = tuple[str, float, int, int, int, int]
"""The columns of a table; boxes are in pixels of the uploaded picture."""

Overlay = tuple[np.ndarray, str]
"""A picture uint8 (H, W, 3), RGB, and its caption."""


@dataclass(frozen=True)
class Views:
    """What the page shows of a picture, at most 1,600 px long.

    `explain` draws what the network looks at: image uint8 (H, W, 3), RGB -> one overlay per scale.
    """

    predictor: Predictor
    explain: Callable[[np.ndarray], Sequence[Overlay]]

    def boxes(self, image: np.ndarray, conf: float, iou: float) -> tuple[np.ndarray, list[Row]]:
        """Image uint8 (H, W, 3), RGB -> the same with boxes; the table's rows, the best first."""
        for name, value in (("confidence", conf), ("IoU", iou)):  # a browser may send anything
            if not (isinstance(value, int | float) and 0 <= value <= 1):
                raise UserError(f"{name}: must be a number from 0 to 1.")
        found = self.predictor([image], conf=float(conf), iou=float(iou))[0].detections
        shown, names = shrink(image, LONGEST_SHOWN_SIDE_PX), self.predictor.class_names
        scale = np.tile(np.divide(shown.shape[1::-1], image.shape[1::-1]), 2)
        scaled = replace(found, boxes_xyxy_px=found.boxes_xyxy_px * torch.from_numpy(scale))
        rows: list[Row] = []
        for (left, top, right, bottom), score, label in found.rows():
            size = round(right - left), round(bottom - top)
            rows.append((names[label], round(score, 3), round(left), round(top), *size))
        return draw_detections(shown, scaled, names), rows

    def maps(self, image: np.ndarray) -> list[Overlay]:
        return list(self.explain(shrink(image, LONGEST_SHOWN_SIDE_PX)))


def read_picture(path: Path) -> np.ndarray:
    """Read an uploaded picture as uint8 (H, W, 3), RGB, if size, format and pixels are acceptable.

    Errors name the file without its folder.
    """
    try:
        _check(path)
        return decode(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def _check(path: Path) -> None:
    """Size, format and number of pixels, from the first bytes only."""
    try:
        size = path.stat().st_size
    except OSError:
        raise UserError(f"the picture {path} is gone: upload it again.") from None
    if size > LARGEST_UPLOAD_MIB * 2**20:
        raise UserError(
            f"the picture {path} has {size / 2**20:.0f} MiB, at most {LARGEST_UPLOAD_MIB} "
            "are allowed."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                is_large = math.prod(image.size) > LARGEST_PICTURE_PX
    except Image.DecompressionBombError:  # more than Pillow itself allows
        is_large = True
    except Exception:  # readers of damaged headers raise nearly anything
        raise UserError(
            f"the file {path} is no picture that can be read: choose a {joined(FORMATS)} file."
        ) from None
    if is_large:
        raise UserError(
            f"the picture {path} has more than {LARGEST_PICTURE_PX // 10**6} million pixels: "
            "make it smaller first."
        )


def write_examples(folder: Path, count: int = 6) -> Sequence[Path]:
    """Draw pictures of the shapes data set, each with several shapes, as JPEG files."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = (draw_scene(np.random.default_rng((0, 1, seed))) for seed in itertools.count())
    full = (scene for scene in scenes if len(scene.annotations) >= 3)
    paths = [folder / f"shapes_{number}.jpg" for number in range(1, count + 1)]
    for path, scene in zip(paths, full, strict=False):
        save_image(path, scene.image)
    return paths
