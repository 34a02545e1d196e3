"""Boxes as annotated -> boxes inside their images, and a word on each that had to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.formats.detection import Findings
from yolo.errors import one_line

LISTED_PER_KIND = 1000
"""So many findings of a kind are written out, for scripts/preflight.py; all are counted."""

ROUNDING_PX = 0.02
"""A box that leaves its image by no more was only rounded (COCO: two decimals) and not reported."""

OTHER_SIZE = "in an image of another size than annotated"


def pack_mended(
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
) -> tuple[Annotations, Findings]:
    """Clip boxes to their images, drop those without an area or with a number that is not finite.

    Args:
        image_ids, file_names, sizes_hw, image_index, labels, ignored: as `Annotations.pack`.
        boxes_xyxy_px: float64 (N, 4), as annotated.
        describe: the number of a box, 0..N-1 -> how a finding names it.
        annotated_hw: (I, 2), the sizes that the annotations give where these may differ from those
            of the images; such boxes stay as they are, but are told.
    """
    annotated_hw = sizes_hw if annotated_hw is None else annotated_hw
    sizes_wh = sizes_hw[image_index, ::-1].astype(np.float64)  # (N, 2)
    finite = np.isfinite(boxes_xyxy_px).all(axis=1)
    with np.errstate(invalid="ignore"):
        clipped = boxes_xyxy_px.clip(0, np.tile(sizes_wh, 2))
        outside = np.abs(boxes_xyxy_px - clipped).max(axis=1, initial=0) > ROUNDING_PX
    # Judged as float32, the precision that is kept: a box may not lose its area afterwards.
    boxes = clipped.astype(np.float32)
    kept = finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    annotations = Annotations.pack(
        image_ids=image_ids,
        file_names=file_names,
        sizes_hw=sizes_hw,
        image_index=image_index[kept],
        boxes_xyxy_px=boxes[kept],
        labels=labels[kept],
        ignored=ignored[kept],
    )
    kinds = {
        "clipped": kept & outside,
        "no area": finite & ~kept,
        "not finite": ~finite,
        OTHER_SIZE: (annotated_hw != sizes_hw).any(axis=1)[image_index],
    }

    def told(kind: str, place: int) -> str:
        height, width = sizes_hw[image_index[place]].tolist()
        image = f"the image of {width}x{height} px"
        if kind == "clipped":
            return f"{describe(place)}, clipped to {image}"
        if kind == OTHER_SIZE:
            height, width = annotated_hw[image_index[place]].tolist()
            return f"{describe(place)}, stays in {image}, annotated as {width}x{height} px"
        return f"{describe(place)}, dropped ({kind}) from {image}"

    return annotations, _findings(kinds, told)


def _findings(kinds: dict[str, np.ndarray], told: Callable[[str, int], str]) -> Findings:
    """Count what was touched and write out the first ones.

    Args:
        kinds: the kind -> bool (N,), which are touched.
        told: the kind and a number, 0..N-1 -> the line about it.
    """
    texts = [
        one_line(told(kind, place))
        for kind, touched in kinds.items()
        for place in np.flatnonzero(touched)[:LISTED_PER_KIND].tolist()
    ]
    counts = {kind: int(touched.sum()) for kind, touched in kinds.items() if touched.any()}
    return Findings(counts=counts, texts=tuple(texts))
