"""What Darknet's layers share, in plain Python and float64."""

import math
from typing import NamedTuple


class Truth(NamedTuple):
    """One box of the truth; centre and size relative to the image."""

    image: int
    box: tuple[float, float, float, float]
    label: int
    ignored: bool


def truths_of(targets) -> list[Truth]:
    return [
        Truth(int(image), tuple(map(float, box)), int(label), bool(ignored))
        for image, box, label, ignored in zip(
            targets.image_index,
            targets.boxes_cxcywh_norm.double(),
            targets.labels,
            targets.ignored,
            strict=True,
        )
    ]


def intersection(a, b) -> float:
    """Of (cx, cy, w, h) boxes."""
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    return max(w, 0) * max(h, 0)


def iou(a, b) -> float:
    both = intersection(a, b)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def shape_iou(a_wh, b_wh) -> float:
    return iou((0, 0, *a_wh), (0, 0, *b_wh))


def sigmoid(x) -> float:
    return 1 / (1 + math.exp(-x))


def is_ignored(box, truths, ignore_threshold: float) -> bool:
    """Whether a box without a truth gets no no-object loss.

    It may where it overlaps a truth by more than the threshold, or lies mainly in an ignored
    region, which Darknet does not have.
    """
    for truth in truths:
        if truth.ignored and intersection(box, truth.box) / (box[2] * box[3]) > 0.5:
            return True
        if not truth.ignored and iou(box, truth.box) > ignore_threshold:
            return True
    return False
