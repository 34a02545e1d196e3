"""Darknet's ``forward_detection_layer``, written in loops over its own flat layout.

``delta`` is a negative gradient. The truth of the cells is laid down as ``fill_truth_region``
(data.c) does it, which shuffles the truths of an image first; here they keep their order. Where no
box overlaps the truth and all are further than 20 from it, Darknet picks box -1 and writes outside
of the cell; here it is the nearest.
"""

import math
from typing import NamedTuple

import numpy as np

from tests.reference.geometry import intersection, iou, truths_of


class Layer(NamedTuple):
    """The settings of a ``[detection]`` section."""

    side: int
    boxes: int
    classes: int
    coord_scale: float = 5
    object_scale: float = 1
    no_object_scale: float = 0.5
    class_scale: float = 1
    rescore: bool = True


def to_darknet(raw, layer):
    """(B, S, S, n * 5 + K) -> (B, S * S * (K + n + n * 4)): all classes, confidences, boxes."""
    images, n = len(raw), layer.boxes
    cells = np.asarray(raw).reshape(images, layer.side**2, -1)
    boxes = cells[..., : n * 5].reshape(images, -1, n, 5)
    parts = (cells[..., n * 5 :], boxes[..., 4], boxes[..., :4])
    return np.concatenate([part.reshape(images, -1) for part in parts], axis=1)


def gradient(raw, targets, layer):
    """The gradient for one image per step, in Darknet's layout, float64.

    Args:
        raw: array (B, S, S, n * 5 + K).
        targets: the truth.
        layer: its settings.
    """
    output = to_darknet(raw, layer).astype(np.float64)
    delta = np.zeros_like(output)
    for b in range(len(output)):
        truths = [truth for truth in truths_of(targets) if truth.image == b]
        truth_of_cell = fill_cells([t for t in truths if not t.ignored], layer)
        regions = [t.box for t in truths if t.ignored]
        for i in range(layer.side**2):
            no_object(output[b], delta[b], i, regions, layer)
            if i in truth_of_cell:
                one_truth(output[b], delta[b], i, *truth_of_cell[i], layer)
    return -delta


def fill_cells(truths, layer):
    """Label and box of each cell that has a truth, the centre from its corner; filled once.

    The place among the cells is float32, as there: it decides on the border of two.
    """
    filled = {}
    for truth in truths:
        x, y = map(float, np.float32(truth.box[:2]) * np.float32(layer.side))
        column, row = min(int(x), layer.side - 1), min(int(y), layer.side - 1)
        box = (x - column, y - row, *truth.box[2:])
        filled.setdefault(column + row * layer.side, (truth.label, box))
    return filled


def no_object(output, delta, i, regions, layer):
    """Pull the confidence of all boxes of cell i to 0, but in ignored regions, not Darknet's."""
    row, column = divmod(i, layer.side)
    for j in range(layer.boxes):
        x, y, w, h = box_of(output, i, j, layer)
        box = (x + column / layer.side, y + row / layer.side, w, h)
        if not any(intersection(box, region) > 0.5 * w * h for region in regions):
            at = confidence_index(i, j, layer)
            delta[at] = layer.no_object_scale * (0 - output[at])


def one_truth(output, delta, i, label, box, layer):
    """The class of cell i, and the box of it that is responsible for its truth."""
    for k in range(layer.classes):
        at = i * layer.classes + k
        delta[at] = layer.class_scale * ((k == label) - output[at])

    x, y, w, h = box
    target = (x / layer.side, y / layer.side, w, h)
    j = responsible([box_of(output, i, j, layer) for j in range(layer.boxes)], target)

    confidence = iou(box_of(output, i, j, layer), target) if layer.rescore else 1
    at = confidence_index(i, j, layer)
    delta[at] = layer.object_scale * (confidence - output[at])
    at = box_index(i, j, layer)
    for c, wanted in enumerate((x, y, math.sqrt(w), math.sqrt(h))):
        delta[at + c] = layer.coord_scale * (wanted - output[at + c])


def responsible(boxes, target):
    """The box of best IoU; by distance as long as none has overlapped."""
    best, best_iou, best_distance = -1, 0, math.inf
    for j, box in enumerate(boxes):
        if best_iou > 0 or iou(box, target) > 0:
            if iou(box, target) > best_iou:
                best, best_iou = j, iou(box, target)
        elif math.dist(box, target) < best_distance:
            best, best_distance = j, math.dist(box, target)
    return best


def confidence_index(i, j, layer):
    return layer.side**2 * layer.classes + i * layer.boxes + j


def box_index(i, j, layer):
    return layer.side**2 * (layer.classes + layer.boxes) + (i * layer.boxes + j) * 4


def box_of(output, i, j, layer):
    """cxcywh relative to the image, the centre from the corner of the cell."""
    at = box_index(i, j, layer)
    x, y, root_w, root_h = output[at : at + 4]
    return x / layer.side, y / layer.side, root_w**2, root_h**2
