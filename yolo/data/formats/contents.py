"""What a data set's files hold; boxes as annotated become boxes inside their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from yolo.data.annotations import Annotations
from yolo.errors import one_line

LISTED_PER_KIND = 1000
"""So many findings of a kind are written out, for scripts/preflight.py; all are counted."""

ROUNDING_PX = 0.02
"""A box that leaves its image by no more was only rounded (COCO: two decimals) and not reported."""

OTHER_SIZE = "in an image of another size than annotated"


@dataclass(frozen=True, slots=True)
class Findings:
    """What was corrected while reading.

    Attributes:
        counts: how many of each kind: boxes "clipped", "no area", "not finite", ...
        texts: one line for each of the first `LISTED_PER_KIND` of a kind.
    """

    counts: dict[str, int]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """Class names by label, the packed truth, what was corrected, and how many images are bad."""

    class_names: tuple[str, ...]
    annotations: Annotations
    findings: Findings
    bad_images: int = 0


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
) -> Contents:
    """Clip boxes to their images, drop those without an area or with a number that is not finite.

    Args:
        class_names, bad_images: as `Contents`.
        image_ids, file_names, sizes_hw, image_index, labels, ignored: as `Annotations.pack`.
        boxes_xyxy_px: float64 (N, 4), as annotated.
        describe: the number of a box, 0..N-1 -> how a finding names it.
        annotated_hw: (I, 2), the sizes that the annotations give where these may differ from those
            of the images; such boxes stay as they are, but are reported.
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
    counts = {kind: int(found.sum()) for kind, found in kinds.items() if found.any()}
    annotations = Annotations.pack(
        image_ids=image_ids,
        file_names=file_names,
        sizes_hw=sizes_hw,
        image_index=image_index[kept],
        boxes_xyxy_px=boxes[kept],
        labels=labels[kept],
        ignored=ignored[kept],
    )
    findings = Findings(counts=counts, texts=tuple(map(one_line, texts)))
    return Contents(tuple(class_names), annotations, findings, bad_images)


def _clip(
    boxes_xyxy_px: np.ndarray, sizes_hw: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Boxes (N, 4) inside images of the sizes (N, 2), which to keep, and which have what fault."""
    finite = np.isfinite(boxes_xyxy_px).all(axis=1)
    with np.errstate(invalid="ignore"):
        clipped = boxes_xyxy_px.clip(0, np.tile(sizes_hw[:, ::-1].astype(np.float64), 2))
        outside = np.abs(boxes_xyxy_px - clipped).max(axis=1, initial=0) > ROUNDING_PX
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
