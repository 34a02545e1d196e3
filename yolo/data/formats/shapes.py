"""The embedded data sets: drawn shapes, generated on first use, never downloaded."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock

from yolo.data.formats.class_folder import ClassFolderDataset
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.formats.shapes_drawing import CATEGORY_IDS, draw_object, draw_scene
from yolo.errors import UserError
from yolo.files import atomic_folder

SPLITS = ("train", "val", "test")
ANNOTATIONS = "instances.json"
MARKER = "finished.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A generated data set."""

    version: int  # raised by whoever changes what is drawn; folders of another one are made anew
    draw: Callable[[Path, str, int, int], None]  # into a folder: the split, number of images, seed
    read: Callable[[Path, Sequence[str] | None], DetectionDataset]  # such a folder, class names
    needed: tuple[str, ...] = ()  # files beside the JPEGs


def open_shapes(
    kind: Kind,
    *,
    root: Path,
    split: str,
    images: int,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> DetectionDataset:
    """Open a data set of shapes, which is generated in a folder of ``root`` unless it is there.

    Each of the ``SPLITS`` and each seed has other images; the first ones are the same for any
    number of them. ``class_names`` is another order of the classes.
    """
    return kind.read(generate(kind, root, split, images, seed), class_names)


def generate(kind: Kind, root: Path, split: str, images: int, seed: int) -> Path:
    """Generate a data set unless it is there, and give its folder in the root.

    The folder appears whole or not at all; of several processes one generates, others wait.
    """
    folder = root / f"{split}-{images}-{seed}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not _is_finished(kind, folder, images):
                _log.info("Generating %d images in %s", images, folder)
                name = f".{folder.name}.unfinished"
                with atomic_folder(folder, temporary_name=name) as temporary:
                    kind.draw(temporary, split, images, seed)
                    (temporary / MARKER).write_text(json.dumps({"version": kind.version}))
                    shutil.rmtree(folder, ignore_errors=True)  # of another version, or damaged
    except OSError as error:
        raise UserError(
            f"{folder}: the data set cannot be written ({error.strerror or error}); "
            "check the folder's permissions and the free space, or choose another root."
        ) from error
    return folder


def _is_finished(kind: Kind, folder: Path, images: int) -> bool:
    marker = folder / MARKER
    return (
        marker.is_file()
        and marker.read_bytes() == json.dumps({"version": kind.version}).encode()
        and sum(1 for _ in folder.rglob("*.jpg")) == images
        and all((folder / name).exists() for name in kind.needed)
    )


def _draw_scenes(folder: Path, split: str, images: int, seed: int) -> None:
    coco: dict[str, Any] = {
        "info": {
            "description": f"Generated shapes, {split}, seed {seed}",
            "version": str(SHAPES.version),
        },
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()],
    }
    for number in range(1, images + 1):
        drawn = draw_scene(_generator(split, seed, number - 1))
        name = f"{number:06d}.jpg"
        _write_jpeg(folder / name, drawn.image)
        height, width = drawn.image.shape[:2]
        coco["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for annotation in drawn.annotations:
            box_number = len(coco["annotations"]) + 1
            coco["annotations"].append({"id": box_number, "image_id": number, **annotation})
    (folder / ANNOTATIONS).write_text(json.dumps(coco))


def _draw_objects(folder: Path, split: str, images: int, seed: int) -> None:
    names = tuple(CATEGORY_IDS)
    for name in names:
        (folder / name).mkdir()
    for index in range(images):
        name = names[index % len(names)]
        image = draw_object(_generator(split, seed, index), name)
        _write_jpeg(folder / name / f"{index + 1:06d}.jpg", image)


def _generator(split: str, seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng((seed, SPLITS.index(split), index))


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    quality = (cv2.IMWRITE_JPEG_QUALITY, 92)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    path.write_bytes(encoded.tobytes())


def _read_scenes(folder: Path, names: Sequence[str] | None) -> DetectionDataset:
    return CocoDataset(annotations=folder / ANNOTATIONS, images=folder, class_names=names)


def _read_objects(folder: Path, names: Sequence[str] | None) -> DetectionDataset:
    return ClassFolderDataset(root=folder, class_names=names)


SHAPES = Kind(2, _draw_scenes, _read_scenes, needed=(ANNOTATIONS,))
"""Shapes of six classes on textured backgrounds, in COCO form.

Objects are from 16 px to most of the image, so that all three scales of a detection head are
needed; they overlap, but at least half of each can be seen. Some images hold a crowd, which is one
region, and some hold nothing.
"""

CLASS_SHAPES = Kind(1, _draw_objects, _read_objects)
"""One shape per image, even over the six classes, in a folder for each, for classifiers."""
