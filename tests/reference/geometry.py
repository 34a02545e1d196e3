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


def predicted_box(t, anchor, i, j, width, height):
    """What YOLOv2 and YOLOv3 make of raw numbers t in column i and row j of the map."""
    x, y = (i + sigmoid(t[0])) / width, (j + sigmoid(t[1])) / height
    return (x, y, math.exp(t[2]) * anchor[0], math.exp(t[3]) * anchor[1])


def box_delta(t, box, anchor, i, j, width, height, scale):
    x, y, w, h = box
    return (
        scale * (x * width - i - sigmoid(t[0])),
        scale * (y * height - j - sigmoid(t[1])),
        scale * (math.log(w / anchor[0]) - t[2]),
        scale * (math.log(h / anchor[1]) - t[3]),
    )


def cell_of(box, width, height) -> tuple[int, int]:
    """Column and row of the cell that holds the centre."""
    return min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)


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
