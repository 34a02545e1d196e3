"""Darknet's ``forward_region_layer`` and ``backward_region_layer_gpu``, written in loops.

``delta`` is a negative gradient, for x, y and objectness with respect to their sigmoid; the
backward pass multiplies the sigmoid's slope to it.
"""

import math

import numpy as np

from tests.reference.geometry import (
    box_delta,
    cell_of,
    iou,
    is_ignored,
    predicted_box,
    shape_iou,
    sigmoid,
    truths_of,
)

SIGMOIDS = (0, 1, 4)


def gradient(
    raw,
    targets,
    *,
    anchors_px,
    size_px,
    assignment="darknet",
    ignore_threshold=0.6,
    coord_scale=1,
    object_scale=5,
    no_object_scale=1,
    class_scale=1,
    rescore=True,
    early=False,
):
    """The gradient for one image per step, float64 (B, A, H, W, 5 + K), and who was left over.

    Args:
        raw: array (B, A, H, W, 5 + K).
        targets: the truth.
        anchors_px: (A, 2).
        size_px: of the square input.
        assignment: ``darknet`` or ``global``.
        early: whether these are the first 12,800 images.

    The rest is named as in the cfg.
    """
    raw = np.asarray(raw, np.float64)
    anchors = np.array(anchors_px, np.float64) / size_px
    _, _, height, width, _ = raw.shape
    truths = truths_of(targets)
    delta = np.zeros_like(raw)

    for b, a, j, i in np.ndindex(raw.shape[:4]):
        t, d = raw[b, a, j, i], delta[b, a, j, i]
        box = predicted_box(t, anchors[a], i, j, width, height)
        if not is_ignored(box, [t for t in truths if t.image == b], ignore_threshold):
            d[4] = no_object_scale * (0 - sigmoid(t[4]))
        if early:
            prior = ((i + 0.5) / width, (j + 0.5) / height, *anchors[a])
            d[:4] = box_delta(t, prior, anchors[a], i, j, width, height, 0.01)

    places, dropped = assign(truths, anchors, width, height, assignment)
    for truth, (a, j, i) in places:  # the later truth writes over what an earlier one wrote
        t, d = raw[truth.image, a, j, i], delta[truth.image, a, j, i]
        scale = coord_scale * (2 - truth.box[2] * truth.box[3])
        d[:4] = box_delta(t, truth.box, anchors[a], i, j, width, height, scale)
        overlap = iou(predicted_box(t, anchors[a], i, j, width, height), truth.box)
        d[4] = object_scale * ((overlap if rescore else 1) - sigmoid(t[4]))
        powers = [math.exp(value - max(t[5:])) for value in t[5:]]
        for k, power in enumerate(powers):
            d[5 + k] = class_scale * ((1 if k == truth.label else 0) - power / sum(powers))

    for b, a, j, i in np.ndindex(raw.shape[:4]):
        for field in SIGMOIDS:
            s = sigmoid(raw[b, a, j, i, field])
            delta[b, a, j, i, field] *= s * (1 - s)
    return -delta, dropped


def assign(truths, anchors, width, height, assignment):
    """(truth, (anchor, row, column)) of every truth that gets a place, and the others' number."""
    cells = {}
    for index, truth in enumerate(truths):
        if not truth.ignored:
            i, j = cell_of(truth.box, width, height)
            cells.setdefault((truth.image, j, i), []).append(index)

    places = {}
    for (_, j, i), members in cells.items():
        fits = {
            (index, a): shape_iou(truths[index].box[2:], anchor)
            for index in members
            for a, anchor in enumerate(anchors)
        }
        if assignment == "darknet":
            for index in members:
                best = max(range(len(anchors)), key=lambda a: fits[index, a])
                places[index] = (best, j, i)
            continue
        while fits:  # the best pair of truth and anchor, then the best of the others, ...
            index, a = max(fits, key=fits.get)
            places[index] = (a, j, i)
            fits = {(t, n): fit for (t, n), fit in fits.items() if t != index and n != a}
    wanted = sum(not truth.ignored for truth in truths)
    return [(truths[index], places[index]) for index in sorted(places)], wanted - len(places)
