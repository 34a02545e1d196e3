"""What a predictor takes and gives: images of any kind, and what was found in one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from yolo.apps.report.drawing import draw_detections, save_image
from yolo.data.images import decode
from yolo.errors import UserError
from yolo.records import Detections

ImageLike = np.ndarray | Image.Image | str | os.PathLike
"""RGB uint8 (H, W, 3), or (B, H, W, 3) for a batch; a PIL image of any mode; a file's path."""

_SHOWN = 5  # boxes that a prediction's text names


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What was found in one image: boxes in pixels of the original, on the host."""

    detections: Detections
    names: list[str]  # the class of each
    image_hw: tuple[int, int]  # of the original

    def draw(self, image: ImageLike) -> np.ndarray:
        """The image that this was found in, with boxes and names: RGB uint8 (H, W, 3), a copy."""
        names = dict(zip(self.detections.labels.tolist(), self.names, strict=True))
        return draw_detections(to_rgb(image), self.detections, names)

    def save(self, path: str | os.PathLike, image: ImageLike) -> None:
        """Write the drawn image in the format of the path's suffix; folders are made."""
        save_image(Path(path), self.draw(image))

    def __repr__(self) -> str:
        scores, (height, width) = self.detections.scores.tolist(), self.image_hw
        found = [f"{name} {score:.2f}" for name, score in zip(self.names, scores, strict=True)]
        more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        shown = ", ".join(found[:_SHOWN]) or "nothing"
        return f"Prediction({shown}{more} in {width} x {height} px)"


def to_rgb(image: ImageLike) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        return decode(Path(image))
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            what = f"a PIL image of mode {image.mode} does not tell which value is white"
            raise UserError(f"{what}: convert it to 8 bits, such as value * 255 / white")
        try:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:  # PIL decodes only now
            raise UserError(f"an image cannot be decoded: {error}") from error
    given = type(image).__name__
    if isinstance(image, np.ndarray):
        given = f"{image.dtype} {image.shape}"
        if image.dtype == np.uint8 and image.size and image.ndim == 2:
            return np.repeat(image[:, :, None], 3, axis=2)  # (H, W) -> (H, W, 3)
        if image.dtype == np.uint8 and image.size and image.shape[2:] == (3,):
            return np.ascontiguousarray(image)
    raise UserError(
        f"an image must be a uint8 array (height, width, 3) in RGB, a PIL image or a path, "
        f"not {given}"
    )
