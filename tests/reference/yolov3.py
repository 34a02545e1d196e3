"""Darknet's ``forward_yolo_layer``, written as Darknet writes it: in loops.

Its ``delta`` is the negative gradient of the loss with respect to the raw output.
"""

import numpy as np

from tests.reference.geometry import (
    box_delta,
    cell_of,
    is_ignored,
    predicted_box,
    shape_iou,
    sigmoid,
    truths_of,
)


def gradients(raw, targets, *, anchors_px, size_px, ignore_threshold):
    """The gradient for one image per step, float64, in the shape of the raw maps.

    Args:
        raw: arrays (B, A, H, W, 5 + K).
        targets: the truth.
        anchors_px: (L, A, 2).
        size_px: of the square input.
        ignore_threshold: as in the cfg.
    """
    anchors = np.array(anchors_px, np.float64) / size_px
    raw = [np.asarray(values, np.float64) for values in raw]
    delta = [np.zeros_like(values) for values in raw]
    truths = truths_of(targets)
    for level, values in enumerate(raw):
        pull_objectness_to_zero(values, delta[level], truths, anchors[level], ignore_threshold)
    owned = set()
    for truth in truths:
        if not truth.ignored:
            owned.add(learn_truth(raw, delta, truth, anchors, owned))
    return [-d for d in delta]


def pull_objectness_to_zero(values, delta, truths, anchors, ignore_threshold):
    height, width = values.shape[2:4]
    for b, a, j, i in np.ndindex(values.shape[:4]):
        t = values[b, a, j, i]
        box = predicted_box(t, anchors[a], i, j, width, height)
        mine = [truth for truth in truths if truth.image == b]
        if not is_ignored(box, mine, ignore_threshold):
            delta[b, a, j, i, 4] = 0 - sigmoid(t[4])


def learn_truth(raw, delta, truth, anchors, owned):
    """Write over the deltas of the best of all anchors; its place."""
    w, h = truth.box[2:]
    fits = [[shape_iou((w, h), anchor) for anchor in row] for row in anchors]
    level, a = np.unravel_index(np.argmax(fits), np.shape(fits))
    _, _, height, width, _ = raw[level].shape
    i, j = cell_of(truth.box, width, height)
    t, d = raw[level][truth.image, a, j, i], delta[level][truth.image, a, j, i]
    d[:4] = box_delta(t, truth.box, anchors[level][a], i, j, width, height, scale=2 - w * h)
    d[4] = 1 - sigmoid(t[4])
    place = (level, truth.image, a, j, i)
    if place in owned:  # delta_yolo_class: of a second truth only its own class is written
        d[5 + truth.label] = 1 - sigmoid(t[5 + truth.label])
    else:
        for k in range(len(t) - 5):
            d[5 + k] = (1 if k == truth.label else 0) - sigmoid(t[5 + k])
    return place
