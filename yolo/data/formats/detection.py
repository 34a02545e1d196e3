"""What every data set of a detector is, whatever its files look like."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.images import LARGEST_IMAGE_PX, decode
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Sample

LONGEST_NAME = 255
"""Characters in the name of a class."""

SHARE_STREAM = 1
"""Sets the draw of a share apart from the other uses of the seed."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was mended while reading.

    Attributes:
        counts: how many of each kind: boxes "clipped", "no area", "not finite", ...
        texts: one line for each of the first `mending.LISTED_PER_KIND` of a kind.
    """

    counts: dict[str, int]
    texts: tuple[str, ...]


class DetectionDataset:
    """Images with boxes. A format is a subclass whose constructor reads the files.

    Args:
        source: the file or folder that error messages name.
        image_root: the folder that the file names are relative to.
        class_names: label -> name.
        category_ids: label -> the category id that the metric reports.
        annotations: the packed truth.
        findings: what was mended in the whole data set.

    Raises:
        UserError: a class has a name that cannot be shown.

    Attributes:
        class_names, category_ids, annotations, findings: as given; findings stay those of the
            whole data set in every selection.
    """

    def __init__(
        self,
        *,
        source: Path,
        image_root: Path,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        annotations: Annotations,
        findings: Findings,
    ) -> None:
        _check_names(source, class_names)
        self._source = source
        self._image_root = image_root
        self.class_names = tuple(class_names)
        self.category_ids = tuple(category_ids)
        self.annotations = annotations
        self.findings = findings

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
        """Decode an image at its full size.

        Raises:
            UserError: the image is missing, damaged or not of the size in the annotations.
        """
        size_hw = self.annotations.size_hw(index)
        return self.sample(index, decode(self.image_path(index), expected_hw=size_hw))

    def empty(self, index: int) -> Sample:
        """What stands for an image that cannot be read: nothing to see, with its truth.

        It is as large as annotated and of the colour that fills empty areas.

        Raises:
            UserError: the annotated size is larger than any image that is read.
        """
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
        generator = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence((seed, SHARE_STREAM)))
        )
        return self.select(np.sort(generator.permutation(len(self))[:count]))

    def ground_truth(self) -> dict[str, Any]:
        """The truth of the selected images in COCO's form, for the metrics.

        Ignored regions have "iscrowd" 1; "area" is width times height; boxes are [x, y, w, h].
        """
        packed = self.annotations
        low, high = packed.boxes_xyxy_px[:, :2], packed.boxes_xyxy_px[:, 2:]
        boxes_xywh_px = np.concatenate([low, high - low], axis=1, dtype=np.float64)  # (N, 4)
        columns = zip(
            packed.image_ids[packed.image_index()].tolist(),
            packed.labels.tolist(),
            boxes_xywh_px.tolist(),
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
        categories = zip(self.category_ids, self.class_names, strict=True)
        return {
            "images": [self._image_entry(index) for index in range(len(self))],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in categories],
        }

    def _image_entry(self, index: int) -> dict[str, Any]:
        height, width = self.annotations.size_hw(index)
        return {
            "id": int(self.annotations.image_ids[index]),
            "file_name": self.annotations.file_name(index),
            "height": height,
            "width": width,
        }


def _check_names(source: Path, class_names: Sequence[str]) -> None:
    """Names are written into pictures, tables, files of one name a line, and onto the terminal."""
    for name in class_names:
        if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
            raise UserError(
                f"{source}: the class name {reprlib.repr(name)} must be 1 to {LONGEST_NAME} "
                "printable characters on one line; correct it there or in data.class_names."
            )


def is_inside(name: str) -> bool:
    """Whether a file name from an annotation stays inside the folder it is relative to."""
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def first_names(names: Iterable[str], count: int = 5) -> str:
    """A list for a message: at most ``count`` names, then how many more."""
    known: Sequence[str] = list(names)
    more = f" and {len(known) - count} more" if len(known) > count else ""
    return ", ".join(known[:count]) + more
