"""What every data set of a detector is, whatever its files look like."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from yolo.data.formats.contents import Contents
from yolo.data.images import LARGEST_IMAGE_PX, decode
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Sample

LONGEST_NAME = 255
"""Characters in the name of a class."""

_SHARE_STREAM = 1  # sets the draw of a share apart from the other uses of the seed


class DetectionDataset:
    """Images with boxes. A format is a subclass whose constructor reads the files.

    Boxes are clipped to their image, and those without an area or with a number that is not finite
    are dropped. Images without boxes stay. Arguments that the formats' constructors share:
    ``class_names``, the order of the labels; ``cache``, a folder to keep what was read in, or None;
    ``on_bad_image``, called for each image whose size cannot be read, returns to go on.

    Args:
        source: the file or folder that error messages name.
        image_root: the folder that the file names are relative to.
        contents: what was read; the findings stay those of the whole data set in every selection.
        category_ids: label -> the category id that the metric reports; None: label + 1.

    Raises:
        UserError: a class has a name that cannot be shown; in a format: its files are at fault.
    """

    def __init__(
        self,
        source: Path,
        image_root: Path,
        contents: Contents,
        category_ids: Sequence[int] | None = None,
    ) -> None:
        for name in contents.class_names:  # shown on terminals and in files of one name a line
            if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
                raise UserError(
                    f"{source}: the class name {reprlib.repr(name)} must be 1 to {LONGEST_NAME} "
                    "printable characters on one line; correct it there or in class_names."
                )
        self._source = source
        self._image_root = image_root
        self.class_names = contents.class_names
        self.category_ids = tuple(category_ids or range(1, len(self.class_names) + 1))
        self.annotations = contents.annotations
        self.findings = contents.findings

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def label_of_category(self) -> dict[int, int]:
        """Category id -> label."""
        return {category_id: label for label, category_id in enumerate(self.category_ids)}

    def image_path(self, index: int) -> Path:
        """The file of an image."""
        return self._image_root / self.annotations.file_name(index)

    def image_name(self, index: int) -> str:
        """The file name of an image without folder and suffix: how VOC's result files call it."""
        return PurePosixPath(self.annotations.file_name(index)).stem

    def load(self, index: int) -> Sample:
        """Decode an image at its full size, which must be the annotated one."""
        size_hw = self.annotations.size_hw(index)
        return self.sample(index, decode(self.image_path(index), expected_hw=size_hw))

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
        return view

    def limit(self, limit: int | Sequence[int]) -> DetectionDataset:
        """The first ``limit`` images, or those with the listed ids, in the data set's order.

        Ids that this data set lacks are passed over: one list serves training and validation.

        Raises:
            UserError: none of the listed ids is in the data set.
        """
        if isinstance(limit, int):
            return self.select(np.arange(min(limit, len(self))))
        indices = np.flatnonzero(np.isin(self.annotations.image_ids, list(limit)))
        if len(indices) == 0:
            raise UserError(
                f"{self._source} has none of the listed image ids ({first_names(map(str, limit))})."
            )
        return self.select(indices)

    def share(self, share: float, seed: int) -> DetectionDataset:
        """A random share (0 < share <= 1) of the images, in the data set's order; at least one.

        The same seed draws the same images, and a smaller share is a part of a larger one.
        """
        assert 0 < share <= 1
        count = max(1, round(share * len(self)))
        sequence = np.random.SeedSequence((seed, _SHARE_STREAM))
        order = np.random.Generator(np.random.PCG64(sequence)).permutation(len(self))
        return self.select(np.sort(order[:count]))

    def ground_truth(self) -> dict[str, Any]:
        """The truth of the selected images in COCO's form, for the metrics.

        Ignored regions have "iscrowd" 1; "area" is width times height; boxes are [x, y, w, h].
        """
        packed = self.annotations
        low, high = packed.boxes_xyxy_px[:, :2], packed.boxes_xyxy_px[:, 2:]
        columns = zip(
            packed.image_ids[packed.image_index()].tolist(),
            packed.labels.tolist(),
            np.concatenate([low, high - low], axis=1, dtype=np.float64).tolist(),  # (N, 4) xywh
            packed.ignored.tolist(),
            strict=True,
        )
        annotations = [
            {
                "id": number,
                "image_id": image_id,
                "category_id": self.category_ids[label],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(ignored),
            }
            for number, (image_id, label, box, ignored) in enumerate(columns, start=1)
        ]
        images = zip(packed.image_ids.tolist(), packed.sizes_hw.tolist(), strict=True)
        categories = zip(self.category_ids, self.class_names, strict=True)
        return {
            "images": [
                {"id": number, "file_name": packed.file_name(index), "height": h, "width": w}
                for index, (number, (h, w)) in enumerate(images)
            ],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in categories],
        }


def check_named_once(what: str, problems: dict[str, set[str]]) -> None:
    """Refuse ``class_names`` that leave out, invent or repeat a name; problems: kind -> names."""
    if any(problems.values()):
        found = "; ".join(f"{kind}: {first_names(sorted(v))}" for kind, v in problems.items() if v)
        raise UserError(f"class_names must name each {what} once, in any order ({found}).")


def is_inside(name: str) -> bool:
    """Whether a file name from an annotation stays inside the folder it is relative to."""
    return bool(name) and name[0] != "/" and "\0" not in name and ".." not in name.split("/")


def first_names(names: Iterable[str], count: int = 5) -> str:
    """A list for a message: at most ``count`` names, then how many more."""
    known = list(names)
    more = f" and {len(known) - count} more" if len(known) > count else ""
    return ", ".join(known[:count]) + more
