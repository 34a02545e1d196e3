"""The truth of a whole data set in a handful of arrays.

No Python object exists per image or box: forked workers only read the arrays, so their pages stay
shared, and memory does not grow with the number of workers (a list of dicts would be copied by the
mere counting of references).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolo.errors import UserError


@dataclass(frozen=True, slots=True)
class Annotations:
    """Images and their boxes, packed. I images, N boxes, sorted by image.

    Attributes:
        image_ids: int64 (I,), the data set's own ids.
        name_bytes: uint8, the UTF-8 file names one after the other.
        name_offsets: int64 (I + 1,), where each name starts in ``name_bytes``.
        sizes_hw: int32 (I, 2), height and width in pixels.
        offsets: int64 (I + 1,), where each image's boxes start.
        boxes_xyxy_px: float32 (N, 4), inside the image.
        labels: int32 (N,), contiguous class indices.
        ignored: bool (N,), regions in which detections count neither for nor against.
    """

    image_ids: np.ndarray
    name_bytes: np.ndarray
    name_offsets: np.ndarray
    sizes_hw: np.ndarray
    offsets: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    @classmethod
    def pack(
        cls,
        *,
        image_ids: np.ndarray,
        file_names: Sequence[str],
        sizes_hw: np.ndarray,
        image_index: np.ndarray,
        boxes_xyxy_px: np.ndarray,
        labels: np.ndarray,
        ignored: np.ndarray,
    ) -> Annotations:
        """Pack N boxes in any order, ``image_index`` (N,) tells the image of each, 0..I-1.

        Within an image their order is kept. A file's name that is not UTF-8 is a UserError.
        """
        by_image = np.argsort(image_index, kind="stable")
        encoded = [encode_name(name) for name in file_names]
        return cls(
            image_ids=image_ids.astype(np.int64),
            name_bytes=np.frombuffer(b"".join(encoded), np.uint8),
            name_offsets=run_offsets(np.fromiter(map(len, encoded), np.int64, len(encoded))),
            sizes_hw=sizes_hw.astype(np.int32).reshape(-1, 2),
            offsets=run_offsets(np.bincount(image_index, minlength=len(image_ids))),
            boxes_xyxy_px=boxes_xyxy_px[by_image].astype(np.float32),
            labels=labels[by_image].astype(np.int32),
            ignored=ignored[by_image].astype(bool),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, index: int) -> str:
        """The file name of an image, relative to the image folder."""
        start, end = self.name_offsets[index : index + 2]
        return self.name_bytes[start:end].tobytes().decode()

    def size_hw(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        height, width = self.sizes_hw[index].tolist()
        return height, width

    def truth(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views of one image's boxes (n, 4), labels (n,) and ignored flags (n,)."""
        boxes = slice(self.offsets[index], self.offsets[index + 1])
        return self.boxes_xyxy_px[boxes], self.labels[boxes], self.ignored[boxes]

    def box_counts(self) -> np.ndarray:
        """Boxes per image, ignored ones included: int64 (I,)."""
        return np.diff(self.offsets)

    def image_index(self) -> np.ndarray:
        """The image of each box: int64 (N,), ascending."""
        return np.repeat(np.arange(len(self)), self.box_counts())

    def subset(self, indices: Sequence[int] | np.ndarray) -> Annotations:
        """The images at ``indices``, in that order, with their boxes."""
        chosen = np.asarray(indices, np.int64)
        names, name_offsets = _gather(self.name_offsets, chosen)
        boxes, offsets = _gather(self.offsets, chosen)
        return Annotations(
            image_ids=self.image_ids[chosen],
            name_bytes=self.name_bytes[names],
            name_offsets=name_offsets,
            sizes_hw=self.sizes_hw[chosen],
            offsets=offsets,
            boxes_xyxy_px=self.boxes_xyxy_px[boxes],
            labels=self.labels[boxes],
            ignored=self.ignored[boxes],
        )


def encode_name(name: str) -> bytes:
    """A file's name in UTF-8; a UserError if it holds bytes that are no UTF-8."""
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the file name {name!r} is not UTF-8; rename the file.") from None


def run_offsets(counts: np.ndarray) -> np.ndarray:
    """Counts (I,) -> where each run starts and the last one ends, int64 (I + 1,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _gather(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the chosen runs' elements, and the offsets of the runs put together."""
    starts, counts = offsets[chosen], np.diff(offsets)[chosen]
    packed = run_offsets(counts)
    return np.arange(packed[-1]) + np.repeat(starts - packed[:-1], counts), packed
