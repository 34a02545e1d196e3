"""What a writer of a format gets, and what no format can say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.formats.detection import first_names
from yolo.errors import UserError

DIGITS = 10
"""Decimals to which sums of exact numbers are rounded: far below float32, far above float64."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A data set on its way into files. I images, N boxes.

    Attributes:
        names: I file names, relative to the folder of images, all different.
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

    def images(self) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """Name, boxes float64 (n, 4) xyxy in pixels, labels (n,) and ignored flags (n,) of each."""
        boxes = shortest(self.annotations.boxes_xyxy_px)
        for index, name in enumerate(self.names):
            _, labels, ignored = self.annotations.truth(index)
            first, end = self.annotations.offsets[index : index + 2]
            yield name, boxes[first:end], labels, ignored


def shortest(values: np.ndarray) -> np.ndarray:
    """float32 -> float64 that reads like the float32: 0.1, not 0.10000000149011612."""
    return values.astype(str).astype(np.float64)


def decimal(value: float) -> str:
    """A number of pixels as text, whole ones without a point."""
    return repr(round(float(value), DIGITS)).removesuffix(".0")


def stem(name: str) -> str:
    """A file's name with its folders, without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def check_distinct(what: str, names: Iterable[str], why: str) -> None:
    """Refuse names that the format could not tell apart.

    Raises:
        UserError: names the first ones.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{what} {first_names(repeated)}: stands there more than once, but {why}.")


def check_plain(what: str, names: Iterable[str], form: str) -> None:
    """Refuse names with control characters or with spaces around them.

    Raises:
        UserError: names the first one.
    """
    for name in names:
        if not name or not name.isprintable() or name != name.strip():
            raise UserError(
                f"{what} {name!r}: {form} cannot hold names that are empty, have spaces around "
                "them or control characters in them; rename it first."
            )
