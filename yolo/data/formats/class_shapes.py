"""The shapes as a folder of class folders: one object per image, generated on first use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yolo.data.formats.class_folder import ClassFolderDataset
from yolo.data.formats.generated import SPLITS, generate_once, generated_folder, write_jpeg
from yolo.data.formats.shapes_scene import CATEGORY_IDS, draw_object

VERSION = 1
"""Raised by whoever changes what is drawn; folders of another version are generated anew."""


class ClassShapesDataset(ClassFolderDataset):
    """One of six shapes on a textured background, for classifiers.

    Args:
        root: where data sets are kept; this one gets a folder of its own in it.
        split: ``train``, ``val`` or ``test``: other images of the same kind.
        images: their number, evenly over the classes; the first ones are the same for any number.
        seed: another seed gives other images.
        class_names: as for any ``ClassFolderDataset``.
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
        folder = generate_class_shapes(Path(root), split, images, seed)
        super().__init__(root=folder, class_names=class_names)


def generate_class_shapes(root: Path, split: str, images: int, seed: int) -> Path:
    """Generate the data set unless it is there, and return its folder.

    Raises:
        UserError: an unknown split, no images, a negative seed, or a root that cannot be written.
    """
    folder = generated_folder(root, "class_shapes", split, images, seed)
    generate_once(
        folder,
        version=VERSION,
        images=images,
        fill=lambda into: _draw_all(into, split, images, seed),
    )
    return folder


def _draw_all(folder: Path, split: str, images: int, seed: int) -> None:
    names = tuple(CATEGORY_IDS)
    for name in names:
        (folder / name).mkdir()
    for index in range(images):
        name = names[index % len(names)]
        image = draw_object(np.random.default_rng((seed, SPLITS.index(split), index)), name)
        write_jpeg(folder / name / f"{index + 1:06d}.jpg", image)
