"""Pascal VOC's metric in loops, from the rules of the development kit: pixels count inclusively."""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax, the first pixel is 1
Truth = tuple[int, int, Box, bool]  # image, class, box, difficult
Detection = tuple[int, int, Box, float]  # image, class, box, confidence


def overlap(a: Box, b: Box) -> float:
    """IoU; minus infinity where no pixel is shared."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return -math.inf
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def curve(
    truths: Sequence[Truth], detections: Sequence[Detection], label: int, iou: float
) -> tuple[list[float], list[float], int]:
    """Recall and precision after each detection that counts, and the number of truths to find."""
    mine = [truth for truth in truths if truth[1] == label]
    to_find = sum(not difficult for _, _, _, difficult in mine)
    taken: set[int] = set()
    right = wrong = 0
    recall, precision = [], []
    found = [detection for detection in detections if detection[1] == label]
    for image, _, box, _ in sorted(found, key=lambda detection: -detection[3]):
        best, best_overlap = -1, -math.inf
        for number, (image_of_truth, _, truth, _) in enumerate(mine):
            if image_of_truth == image and overlap(box, truth) > best_overlap:
                best, best_overlap = number, overlap(box, truth)
        if best_overlap >= iou:
            if mine[best][3]:
                continue
            right += best not in taken
            wrong += best in taken
            taken.add(best)
        else:
            wrong += 1
        recall.append(right / to_find if to_find else 0.0)
        precision.append(right / (right + wrong))
    return recall, precision, to_find


def ap_all_points(recall: Sequence[float], precision: Sequence[float]) -> float:
    """The area under the precision, each point raised to the best that follows."""
    recall, precision = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def ap_11_points(recall: Sequence[float], precision: Sequence[float]) -> float:
    """The mean of the best precision at a recall of at least 0, 0.1, .. 1."""
    total = 0.0
    for tenth in range(11):
        points = [p for r, p in zip(recall, precision, strict=True) if r >= tenth / 10]
        total += max(points, default=0.0)
    return total / 11
