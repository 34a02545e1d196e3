"""The truth of a whole data set in a handful of arrays.

No Python object exists per image or box: forked workers only read the arrays, so their pages stay
shared, and memory does not grow with the number of workers (a list of dicts would be copied by the
mere counting of references).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from yolo.errors import UserError, one_line
from yolo.letterbox import Letterbox

LISTED_PER_KIND = 1000
"""So many findings of a kind are written out, for scripts/preflight.py; all are counted."""

OTHER_SIZE = "in an image of another size than annotated"


@dataclass(frozen=True, slots=True)
class Annotations:
    """Images and their boxes, packed. I images, N boxes, sorted by image."""

    image_ids: np.ndarray  # int64 (I,), the data set's own ids
    name_bytes: np.ndarray  # uint8, the UTF-8 file names one after the other
    name_offsets: np.ndarray  # int64 (I + 1,), where each name starts in name_bytes
    sizes_hw: np.ndarray  # int32 (I, 2), height and width in pixels
    offsets: np.ndarray  # int64 (I + 1,), where each image's boxes start
    boxes_xyxy_px: np.ndarray  # float32 (N, 4), inside the image
    labels: np.ndarray  # int32 (N,), contiguous class indices
    ignored: np.ndarray  # bool (N,), where detections count neither for nor against

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


def box_sizes_px(annotations: Annotations, image_size_px: int) -> np.ndarray:
    """Widths and heights of all boxes in the letterboxed image, ignored ones left out.

    Returns:
        float64 (N, 2), in pixels of the network's input, in hundredths and not below one.
    """
    sizes_hw, index = np.unique(annotations.sizes_hw, axis=0, return_inverse=True)  # few differ
    boxes = [Letterbox.fit((int(h), int(w)), image_size_px) for h, w in sizes_hw]
    scaled_hw = np.array([box.scaled_hw for box in boxes]).reshape(-1, 2)
    scale_wh = (scaled_hw / sizes_hw)[index.reshape(-1), ::-1]  # (I, 2)
    kept = ~annotations.ignored
    corners = annotations.boxes_xyxy_px[kept].astype(np.float64)
    sizes_wh = (corners[:, 2:] - corners[:, :2]) * scale_wh[annotations.image_index()[kept]]
    finest_px = 0.01  # so that boxes of one size in different places count as equal
    return np.maximum((sizes_wh / finest_px).round(), 1) * finest_px


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


@dataclass(frozen=True, slots=True)
class Findings:
    """What was corrected while reading, and what else is worth knowing of the files."""

    counts: dict[str, int]  # of each kind: boxes "clipped", "no area", "not finite", ...
    texts: tuple[str, ...]  # one line for each of the first LISTED_PER_KIND of a kind
    notes: tuple[str, ...] = ()  # what stands beside the number of images: "3 images turned"
    warnings: tuple[str, ...] = ()  # sentences on what may be a mistake, without a full stop


@dataclass(frozen=True, slots=True)
class Contents:
    class_names: tuple[str, ...]  # by label
    annotations: Annotations
    findings: Findings
    bad_images: int = 0  # how many cannot be read
    file_bytes: np.ndarray | None = None  # int64 (I,), of the images' files, where these were seen


def sanitize(
    class_names: Sequence[str],
    *,
    image_ids: np.ndarray,
    file_names: Sequence[str],
    sizes_hw: np.ndarray,
    image_index: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    labels: np.ndarray,
    ignored: np.ndarray,
    describe: Callable[[int], str],
    annotated_hw: np.ndarray | None = None,
    bad_images: int = 0,
    notes: Iterable[str] = (),
    left_out: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Contents:
    """Clip boxes to their images, drop those without an area or with a number that is not finite.

    Args:
        class_names, bad_images: as `Contents`; the others up to ``ignored`` as `Annotations.pack`.
        describe: the number of a box, 0..N-1 -> how a finding names it.
        annotated_hw: (I, 2), the sizes that the annotations give where these may differ from those
            of the images; such boxes stay as they are, but are reported.
        notes: what is to be counted of images and boxes, "" for nothing: "images turned".
        left_out: why -> annotations that are not among the boxes, for the findings.
    """
    annotated_hw = sizes_hw if annotated_hw is None else annotated_hw
    boxes, kept, kinds = _clip(boxes_xyxy_px, sizes_hw[image_index])
    kinds[OTHER_SIZE] = (annotated_hw != sizes_hw).any(axis=1)[image_index]
    texts = [
        f"{describe(place)}, {_outcome(kind, sizes_hw[image], annotated_hw[image])}"
        for kind, found in kinds.items()
        for place in np.flatnonzero(found)[:LISTED_PER_KIND].tolist()
        for image in [image_index[place]]
    ]
    texts += [f"{text}, {kind}" for kind in left_out for text in left_out[kind][:LISTED_PER_KIND]]
    counts = {kind: int(found.sum()) for kind, found in kinds.items() if found.any()}
    counts |= {kind: len(found) for kind, found in left_out.items() if found}
    annotations = Annotations.pack(
        image_ids=image_ids,
        file_names=file_names,
        sizes_hw=sizes_hw,
        image_index=image_index[kept],
        boxes_xyxy_px=boxes[kept],
        labels=labels[kept],
        ignored=ignored[kept],
    )
    noted = Counter(filter(None, notes)).items()
    counted = tuple(f"{count:,} {note}" for note, count in noted)
    findings = Findings(counts, tuple(map(one_line, texts)), counted)
    return Contents(tuple(class_names), annotations, findings, bad_images)


def _clip(
    boxes_xyxy_px: np.ndarray, sizes_hw: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Boxes (N, 4) inside images of the sizes (N, 2), which to keep, and which have what fault."""
    finite = np.isfinite(boxes_xyxy_px).all(axis=1)
    with np.errstate(invalid="ignore"):
        clipped = boxes_xyxy_px.clip(0, np.tile(sizes_hw[:, ::-1].astype(np.float64), 2))
        # what leaves its image by less was only rounded (COCO: two decimals)
        outside = np.abs(boxes_xyxy_px - clipped).max(axis=1, initial=0) > 0.02
    # Judged as float32, the precision that is kept: a box may not lose its area afterwards.
    boxes = clipped.astype(np.float32)
    kept = finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    faults = {"clipped": kept & outside, "no area": finite & ~kept, "not finite": ~finite}
    return boxes, kept, faults


def _outcome(kind: str, size_hw: np.ndarray, annotated_hw: np.ndarray) -> str:
    image = f"the image of {size_hw[1]}x{size_hw[0]} px"
    if kind == "clipped":
        return f"clipped to {image}"
    if kind == OTHER_SIZE:
        return f"stays in {image}, annotated as {annotated_hw[1]}x{annotated_hw[0]} px"
    return f"dropped ({kind}) from {image}"
