"""The embedded data set: drawn shapes in COCO form, generated on first use, never downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.generated import SPLITS, generate_once, generated_folder, write_jpeg
from yolo.data.formats.shapes_scene import CATEGORY_IDS, draw_scene

VERSION = 2
"""Raised by whoever changes what is drawn; folders of another version are generated anew."""

ANNOTATIONS = "instances.json"


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

    Returns:
        ``<root>/<split>-<images>-<seed>``, with the JPEGs and ``instances.json``.

    Raises:
        UserError: an unknown split, no images, a negative seed, or a root that cannot be written.
    """
    folder = generated_folder(root, "shapes", split, images, seed)
    generate_once(
        folder,
        version=VERSION,
        images=images,
        fill=lambda into: _generate(into, split, images, seed),
        needed=[ANNOTATIONS],
    )
    return folder


def _generate(folder: Path, split: str, images: int, seed: int) -> None:
    coco: dict[str, Any] = {
        "info": {"description": f"Generated shapes, {split}, seed {seed}", "version": str(VERSION)},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()],
    }
    for index in range(images):
        scene = draw_scene(np.random.default_rng((seed, SPLITS.index(split), index)))
        name = f"{index + 1:06d}.jpg"
        write_jpeg(folder / name, scene.image)
        height, width = scene.image.shape[:2]
        coco["images"].append(
            {"id": index + 1, "file_name": name, "width": width, "height": height}
        )
        for annotation in scene.annotations:
            number = len(coco["annotations"]) + 1
            coco["annotations"].append({"id": number, "image_id": index + 1, **annotation})
    (folder / ANNOTATIONS).write_text(json.dumps(coco))
