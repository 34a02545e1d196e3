"""The embedded data set: drawn shapes in COCO form, generated on first use, never downloaded."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock

from yolo.data.datasets.coco import CocoDataset
from yolo.data.datasets.shapes_scene import CATEGORY_IDS, draw_scene
from yolo.errors import UserError

VERSION = 2
"""Raised by whoever changes what is drawn; folders of another version are generated anew."""

SPLITS = ("train", "val", "test")
ANNOTATIONS = "instances.json"

_MARKER = "finished.json"

_log = logging.getLogger(__name__)


class ShapesDataset(CocoDataset):
    """Shapes of six classes on textured backgrounds.

    Objects are from 16 px to most of the image, so that all three scales of a detection head are
    needed; they overlap, but at least half of each can be seen. Some images hold a crowd, which is
    one region, and some hold nothing.

    Args:
        root: where data sets are kept; this one gets a folder of its own in it.
        split: ``train``, ``val`` or ``test``: other images of the same kind.
        images: their number; the first ones are the same for any number.
        seed: another seed gives other images.
        class_names: as for any ``CocoDataset``.
    """

    def __init__(
        self,
        *,
        root: Path,
        split: str,
        images: int,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
    ) -> None:
        folder = generate_shapes(Path(root), split, images, seed)
        super().__init__(annotations=folder / ANNOTATIONS, images=folder, class_names=class_names)


def generate_shapes(root: Path, split: str, images: int, seed: int) -> Path:
    """Generate the data set unless it is there, and return its folder.

    The folder appears whole or not at all; of several processes one generates and the others wait.

    Returns:
        ``<root>/<split>-<images>-<seed>``, with the JPEGs and ``instances.json``.

    Raises:
        UserError: an unknown split, no images, a negative seed, or a root that cannot be written.
    """
    if split not in SPLITS:
        raise UserError(f"shapes: there is no split {split!r}; choose {', '.join(SPLITS)}.")
    if images < 1 or seed < 0:
        raise UserError(
            f"shapes: {images} images with seed {seed} cannot be drawn; "
            "ask for at least 1 image and a seed of at least 0."
        )
    folder = root / f"{split}-{images}-{seed}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not _is_finished(folder, images):
                _generate(folder, split, images, seed)
    except OSError as error:
        raise UserError(
            f"{folder}: the shapes data set cannot be written ({error.strerror or error}); "
            "check the folder's permissions and the free space, or choose another root."
        ) from error
    return folder


def _is_finished(folder: Path, images: int) -> bool:
    try:
        marker = json.loads((folder / _MARKER).read_text())
    except (OSError, ValueError):
        return False
    present = sum(1 for _ in folder.glob("*.jpg")) == images and (folder / ANNOTATIONS).exists()
    return present and marker == {"version": VERSION}


def _generate(folder: Path, split: str, images: int, seed: int) -> None:
    _log.info("Generating %d images of shapes in %s", images, folder)
    temporary = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was stopped
    temporary.mkdir()
    coco: dict[str, Any] = {
        "info": {"description": f"Generated shapes, {split}, seed {seed}", "version": str(VERSION)},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()],
    }
    for index in range(images):
        scene = draw_scene(np.random.default_rng((seed, SPLITS.index(split), index)))
        name = f"{index + 1:06d}.jpg"
        _write_jpeg(temporary / name, scene.image)
        height, width = scene.image.shape[:2]
        coco["images"].append(
            {"id": index + 1, "file_name": name, "width": width, "height": height}
        )
        for annotation in scene.annotations:
            number = len(coco["annotations"]) + 1
            coco["annotations"].append({"id": number, "image_id": index + 1, **annotation})
    (temporary / ANNOTATIONS).write_text(json.dumps(coco))
    (temporary / _MARKER).write_text(json.dumps({"version": VERSION}))
    shutil.rmtree(folder, ignore_errors=True)  # of another version, or damaged
    temporary.rename(folder)


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    quality = (cv2.IMWRITE_JPEG_QUALITY, 92)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    path.write_bytes(encoded.tobytes())
