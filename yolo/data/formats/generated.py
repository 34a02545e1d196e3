"""Data sets that are generated on first use: whole or not at all, once for all processes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock

from yolo.errors import UserError

SPLITS = ("train", "val", "test")
MARKER = "finished.json"

_log = logging.getLogger(__name__)


def generated_folder(root: Path, kind: str, split: str, images: int, seed: int) -> Path:
    """``<root>/<split>-<images>-<seed>``.

    Args:
        root: where data sets are kept.
        kind: of the data set, for errors.
        split, images, seed: what is drawn.

    Raises:
        UserError: an unknown split, no images or a negative seed.
    """
    if split not in SPLITS:
        raise UserError(f"{kind}: there is no split {split!r}; choose {', '.join(SPLITS)}.")
    if images < 1 or seed < 0:
        raise UserError(
            f"{kind}: {images} images with seed {seed} cannot be drawn; "
            "ask for at least 1 image and a seed of at least 0."
        )
    return root / f"{split}-{images}-{seed}"


def generate_once(
    folder: Path,
    *,
    version: int,
    images: int,
    fill: Callable[[Path], None],
    needed: Sequence[str] = (),
) -> None:
    """Generate a data set unless it is there.

    The folder appears whole or not at all; of several processes one generates and the others wait.

    Args:
        folder: of the data set.
        version: of what is drawn; a folder of another version is generated anew, and so is one
            that lacks images or what is needed.
        images: how many JPEGs there are in it and in its folders.
        fill: writes the files into the folder that it is given.
        needed: names of further files.

    Raises:
        UserError: the folder cannot be written.
    """
    marker = {"version": version}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if _is_finished(folder, marker, images, needed):
                return
            _log.info("Generating %d images in %s", images, folder)
            temporary = folder.with_name(f".{folder.name}.unfinished")
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was stopped
            temporary.mkdir()
            fill(temporary)
            (temporary / MARKER).write_text(json.dumps(marker))
            shutil.rmtree(folder, ignore_errors=True)  # of another version, or damaged
            temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: the data set cannot be written ({error.strerror or error}); "
            "check the folder's permissions and the free space, or choose another root."
        ) from error


def _is_finished(folder: Path, marker: dict[str, int], images: int, needed: Sequence[str]) -> bool:
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    present = sum(1 for _ in folder.rglob("*.jpg")) == images
    return found == marker and present and all((folder / name).exists() for name in needed)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB in good quality."""
    quality = (cv2.IMWRITE_JPEG_QUALITY, 92)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    path.write_bytes(encoded.tobytes())
