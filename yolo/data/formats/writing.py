"""What the writers of the formats share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.errors import UserError

DIGITS = 10
"""Decimals to which sums of exact numbers are rounded: far below float32, far above float64."""


class WrittenImage(NamedTuple):
    """An image on its way into files, with n boxes.

    Attributes:
        name: of the file, relative to the folder of images.
        boxes_xyxy_px: float64 (n, 4) that read like the float32: 0.1, not 0.10000000149011612.
    """

    id: int
    name: str
    height: int
    width: int
    boxes_xyxy_px: np.ndarray
    labels: list[int]
    ignored: list[bool]

    def objects(self) -> Iterator[tuple[list[float], int, bool]]:
        """Box, label and ignored flag of each object."""
        return zip(self.boxes_xyxy_px.tolist(), self.labels, self.ignored, strict=True)


def images_to_write(dataset: DetectionDataset, names: Sequence[str]) -> list[WrittenImage]:
    """All images of a data set, under other names."""
    packed = dataset.annotations
    boxes = packed.boxes_xyxy_px.astype(str).astype(np.float64)
    images = []
    for index, (number, name) in enumerate(zip(packed.image_ids.tolist(), names, strict=True)):
        _, labels, ignored = packed.truth(index)
        own = boxes[packed.offsets[index] : packed.offsets[index + 1]]
        size_hw = packed.size_hw(index)
        images.append(WrittenImage(number, name, *size_hw, own, labels.tolist(), ignored.tolist()))
    return images


def decimal(value: float) -> str:
    """A number of pixels as text, whole ones without a point."""
    return repr(round(float(value), DIGITS)).removesuffix(".0")


def stem(name: str) -> str:
    """A file's name with its folders, without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def check_distinct(what: str, names: Iterable[str], why: str) -> None:
    """Refuse names that the format could not tell apart."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{what} {first_names(repeated)}: stands there more than once, but {why}.")


def check_plain(class_names: Sequence[str], images: Iterable[WrittenImage], form: str) -> None:
    """Refuse what a format that has all names as text cannot hold, and repeated class names."""
    classes = (("the class", name) for name in class_names)
    for what, name in chain(classes, (("the image", image.name) for image in images)):
        if not name or not name.isprintable() or name != name.strip():
            raise UserError(
                f"{what} {name!r}: {form} cannot hold names that are empty, have spaces around "
                "them or control characters in them; rename it first."
            )
    check_distinct("the class", class_names, f"{form} knows classes by their names")
