"""Pictures written to files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yolo.errors import UserError
from yolo.files import atomic_write


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
        atomic_write(path, encoded.tobytes())
    except OSError as error:
        raise UserError(
            f"{path}: the image cannot be written ({error.strerror or error}); "
            "check the folder's permissions and the free space."
        ) from error
