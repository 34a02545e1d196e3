"""What every data set of a detector is, whatever its files look like, and what its writers get."""

from __future__ import annotations

import copy
import hashlib
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from yolo.data.annotations import Contents
from yolo.data.images import LARGEST_IMAGE_PX, decode
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Sample

DIGITS = 10
"""Decimals to which sums of exact numbers are rounded: far below float32, far above float64."""

Key = int | str
"""An id as a file has it; the data set's own ids are whole numbers that a double holds."""


class DetectionDataset:
    """Images with boxes. A format is a subclass whose constructor reads the files.

    Boxes are clipped to their image, and those without an area or with a number that is not finite
    are dropped. Images without boxes stay. Arguments that the formats' constructors share:
    ``class_names``, the order of the labels; ``cache``, a folder to keep what was read in, or None;
    ``on_bad_image``, called for each image whose size cannot be read, returns to go on;
    ``upright``, whether boxes were drawn on the images as their EXIF turns them, unless a size in
    the annotations tells that it was not so, or on their pixels as stored.

    Args:
        source: the file or folder that error messages name.
        image_root: the folder that the file names are relative to.
        contents: what was read; the findings stay those of the whole data set in every selection.
        category_ids: label -> the id of the class in files; None: label + 1.
    """

    def __init__(
        self,
        source: Path,
        image_root: Path,
        contents: Contents,
        category_ids: Sequence[Key] | None = None,
        *,
        upright: bool = True,
    ) -> None:
        for name in contents.class_names:  # shown on terminals and in files of one name a line
            if not (0 < len(name) <= 255 and name.isprintable()):
                raise UserError(
                    f"{source}: the class name {reprlib.repr(name)} must be 1 to 255 printable "
                    "characters on one line; correct it there or in class_names."
                )
        self.source = source
        self._image_root = image_root
        self.class_names = contents.class_names
        self.category_ids: tuple[Key, ...]
        self.category_ids = tuple(category_ids or range(1, len(self.class_names) + 1))
        self.annotations = contents.annotations
        self.findings = contents.findings
        self.upright = upright
        self._file_bytes = contents.file_bytes

    def __len__(self) -> int:
        return len(self.annotations)

    def own_image_ids(self) -> dict[int, Key]:
        """The id of each image -> that in files."""
        return {number: number for number in self.annotations.image_ids.tolist()}

    def image_path(self, index: int) -> Path:
        return self._image_root / self.annotations.file_name(index)

    def image_name(self, index: int) -> str:
        """The file name of an image without folder and suffix: how VOC's result files call it."""
        return PurePosixPath(self.annotations.file_name(index)).stem

    def fingerprint(self) -> dict[str, Any]:
        """What is equal for equal images and truth in one order, wherever their files lie.

        Numbers of images and boxes, and digests. Of the files only the sizes are looked at.
        """
        packed = self.annotations
        sizes = self._file_bytes
        if sizes is None:
            sizes = np.array([_file_size(self.image_path(i)) for i in range(len(self))], np.int64)
        return {
            "images": len(self),
            "boxes": len(packed.labels),
            "order": _digest(packed.image_ids, packed.sizes_hw),
            "truth": _digest(packed.offsets, packed.boxes_xyxy_px, packed.labels, packed.ignored),
            "files": _digest(sizes),
        }

    def load(self, index: int) -> Sample:
        """Decode an image at its full size, which must be the annotated one."""
        size_hw = self.annotations.size_hw(index)
        image = decode(self.image_path(index), expected_hw=size_hw, upright=self.upright)
        return self.sample(index, image)

    def empty(self, index: int) -> Sample:
        """What replaces an image that cannot be read: as large, of one colour, with its truth."""
        height, width = self.annotations.size_hw(index)
        if height * width > LARGEST_IMAGE_PX:
            raise UserError(
                f"{self.image_path(index)} is annotated as an image of {width}x{height} px, more "
                f"than {LARGEST_IMAGE_PX:,}; correct the annotations."
            )
        return self.sample(index, np.full((height, width, 3), FILL_COLOUR_RGB, np.uint8))

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """The image with its truth, which is for an image of this size."""
        boxes, labels, ignored = self.annotations.truth(index)
        height, width = image.shape[:2]
        return Sample(
            image=image,
            boxes_xyxy_px=boxes.copy(),
            labels=labels.astype(np.int64),
            ignored=ignored.copy(),
            image_id=int(self.annotations.image_ids[index]),
            original_size_hw=(height, width),
        )

    def select(self, indices: Sequence[int] | np.ndarray) -> DetectionDataset:
        """A view with the images at ``indices``, in that order."""
        view = copy.copy(self)
        view.annotations = self.annotations.subset(indices)
        if self._file_bytes is not None:
            view._file_bytes = self._file_bytes[np.asarray(indices, np.int64)]
        return view

    def limit(self, limit: int | Sequence[int]) -> DetectionDataset:
        """The first ``limit`` images, or those with the listed ids, in the data set's order.

        Ids that this data set lacks are passed over, for one list serves training and validation,
        unless it lacks all: a UserError.
        """
        if isinstance(limit, int):
            return self.select(np.arange(min(limit, len(self))))
        indices = np.flatnonzero(np.isin(self.annotations.image_ids, list(limit)))
        if len(indices) == 0:
            raise UserError(
                f"{self.source} has none of the listed image ids ({first_names(map(str, limit))})."
            )
        return self.select(indices)

    def share(self, share: float, seed: int) -> DetectionDataset:
        """A random share (0 < share <= 1) of the images, in the data set's order; at least one.

        The same seed draws the same images, and a smaller share is a part of a larger one.
        """
        assert 0 < share <= 1
        count = max(1, round(share * len(self)))
        generator = np.random.default_rng((seed, 1))  # apart from the other uses of the seed
        order = generator.permutation(len(self))
        return self.select(np.sort(order[:count]))

    def ground_truth(self) -> dict[str, Any]:
        """The truth of the selected images in COCO's form, for the metrics.

        Category ids are labels. Ignored regions have "iscrowd" 1; "area" is width times height;
        boxes are [x, y, w, h].
        """
        packed = self.annotations
        low, high = packed.boxes_xyxy_px[:, :2], packed.boxes_xyxy_px[:, 2:]
        boxes = np.concatenate([low, high - low], axis=1, dtype=np.float64)  # (N, 4) xywh
        image_ids, areas = packed.image_ids[packed.image_index()], boxes[:, 2] * boxes[:, 3]
        return self._coco_form(image_ids, packed.labels, boxes, areas, packed.ignored.astype(int))

    def _coco_form(self, *columns: np.ndarray) -> dict[str, Any]:
        """The columns are of boxes: image ids, labels, [x, y, w, h], areas and 1 for ignored."""
        packed, fields = self.annotations, ("image_id", "category_id", "bbox", "area", "iscrowd")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        images = zip(packed.image_ids.tolist(), packed.sizes_hw.tolist(), strict=True)
        return {
            "images": [
                {"id": number, "file_name": packed.file_name(index), "height": h, "width": w}
                for index, (number, (h, w)) in enumerate(images)
            ],
            "annotations": [
                {"id": number, **dict(zip(fields, row, strict=True))}
                for number, row in enumerate(rows, start=1)
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.class_names)],
        }


def _digest(*arrays: np.ndarray) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it says why
        return -1


def check_named_once(
    what: str, names: Sequence[str], class_names: Sequence[str], *, unknown: str, missing: str
) -> None:
    """Refuse ``class_names`` that invent (``unknown``), omit (``missing``) or repeat a name."""
    found = {
        unknown: set(class_names) - set(names),
        missing: set(names) - set(class_names),
        "more than once": {n for n in names if max(names.count(n), class_names.count(n)) > 1},
    }
    problems = [f"{kind}: {first_names(sorted(which))}" for kind, which in found.items() if which]
    if problems:
        raise UserError(
            f"class_names must name each {what} once, in any order ({'; '.join(problems)})."
        )


def is_inside(name: str) -> bool:
    """Whether a file name from an annotation stays inside the folder it is relative to."""
    return bool(name) and name[0] != "/" and "\0" not in name and ".." not in name.split("/")


def first_names(names: Iterable[str], count: int = 5) -> str:
    """A list for a message: at most ``count`` names, then how many more."""
    known = list(names)
    more = f" and {len(known) - count} more" if len(known) > count else ""
    return ", ".join(known[:count]) + more


class WrittenImage(NamedTuple):
    """An image on its way into files of another format, with n boxes."""

    name: str  # of the file, relative to the folder of images
    height: int
    width: int
    boxes_xyxy_px: np.ndarray  # float64 (n, 4) with no more digits than the float32 they were
    labels: list[int]
    ignored: list[bool]

    @property
    def stem(self) -> str:
        """The name with its folders, without its suffix."""
        return str(PurePosixPath(self.name).with_suffix(""))

    def objects(self) -> Iterator[tuple[list[float], int, bool]]:
        """Box, label and ignored flag of each object."""
        return zip(self.boxes_xyxy_px.tolist(), self.labels, self.ignored, strict=True)


def decimal(value: float) -> str:
    """A number of pixels as text, whole ones without a point."""
    return repr(round(float(value), DIGITS)).removesuffix(".0")


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
