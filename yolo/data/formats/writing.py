"""What the writers of the formats share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.formats.detection import first_names
from yolo.errors import UserError

DIGITS = 10
"""Decimals to which sums of exact numbers are rounded: far below float32, far above float64."""


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """An image with its n boxes.

    Attributes:
        id: in the data set.
        name: of the file, relative to the folder of images.
        height, width: in pixels.
        boxes_xyxy_px: float64 (n, 4) that read like the float32: 0.1, not 0.10000000149011612.
        labels, ignored: n each.
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


@dataclass(frozen=True, kw_only=True)
class Content:
    """A data set on its way into files.

    Attributes:
        names: the images' file names, relative to the folder of images, all different.
        annotations: sizes, boxes, labels; its own file names do not count.
        class_names: label -> name.
        category_ids: label -> id.
        split: train, val or test.
    """

    names: Sequence[str]
    annotations: Annotations
    class_names: Sequence[str]
    category_ids: Sequence[int]
    split: str

    def images(self) -> Iterator[WrittenImage]:
        """All images in their order."""
        packed = self.annotations
        boxes = packed.boxes_xyxy_px.astype(str).astype(np.float64)
        for index, name in enumerate(self.names):
            height, width = packed.size_hw(index)
            _, labels, ignored = packed.truth(index)
            first, end = packed.offsets[index : index + 2]
            number = int(packed.image_ids[index])
            yield WrittenImage(
                number, name, height, width, boxes[first:end], labels.tolist(), ignored.tolist()
            )


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
    """Refuse names that the format could not tell apart.

    Raises:
        UserError: names the first ones.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{what} {first_names(repeated)}: stands there more than once, but {why}.")


def check_plain(content: Content, form: str) -> None:
    """Refuse what the formats that name classes in text cannot hold.

    Raises:
        UserError: a name with control characters or spaces around it, or a class name that repeats.
    """
    for what, names in (("the class", content.class_names), ("the image", content.names)):
        for name in names:
            if not name or not name.isprintable() or name != name.strip():
                raise UserError(
                    f"{what} {name!r}: {form} cannot hold names that are empty, have spaces around "
                    "them or control characters in them; rename it first."
                )
    check_distinct("the class", content.class_names, f"{form} knows classes by their names")
