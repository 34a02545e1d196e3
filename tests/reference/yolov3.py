"""Darknet's ``forward_yolo_layer``, written as Darknet writes it: in loops.

Its ``delta`` is the negative gradient of the loss with respect to the raw output.
"""

import math

import numpy as np

from tests.reference.geometry import is_ignored, shape_iou, sigmoid, truths_of


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
        w, h = math.exp(t[2]) * anchors[a][0], math.exp(t[3]) * anchors[a][1]
        box = ((i + sigmoid(t[0])) / width, (j + sigmoid(t[1])) / height, w, h)
        mine = [truth for truth in truths if truth.image == b]
        if not is_ignored(box, mine, ignore_threshold):
            delta[b, a, j, i, 4] = 0 - sigmoid(t[4])


def learn_truth(raw, delta, truth, anchors, owned):
    """Write over the deltas of the best of all anchors; its place."""
    x, y, w, h = truth.box
    fits = [[shape_iou((w, h), anchor) for anchor in row] for row in anchors]
    level, a = np.unravel_index(np.argmax(fits), np.shape(fits))
    _, _, height, width, _ = raw[level].shape
    i, j = min(int(x * width), width - 1), min(int(y * height), height - 1)
    t, d = raw[level][truth.image, a, j, i], delta[level][truth.image, a, j, i]
    scale = 2 - w * h
    d[0] = scale * (x * width - i - sigmoid(t[0]))
    d[1] = scale * (y * height - j - sigmoid(t[1]))
    d[2] = scale * (math.log(w / anchors[level][a][0]) - t[2])
    d[3] = scale * (math.log(h / anchors[level][a][1]) - t[3])
    d[4] = 1 - sigmoid(t[4])
    place = (level, truth.image, a, j, i)
    if place in owned:  # delta_yolo_class: of a second truth only its own class is written
        d[5 + truth.label] = 1 - sigmoid(t[5 + truth.label])
    else:
        for k in range(len(t) - 5):
            d[5 + k] = (1 if k == truth.label else 0) - sigmoid(t[5 + k])
    return place
