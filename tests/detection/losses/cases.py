"""Truths that try the losses: random ones, and those that are easily mistaken."""

import math

import numpy as np
import torch

from yolo.records import Targets

CLASSES = 4


def make_targets(rows):
    """rows: (image, cx, cy, w, h, label[, ignored]), sorted by image."""
    rows = [(*row, False)[:7] for row in rows]
    images = [row[0] for row in rows]
    return Targets(
        boxes_cxcywh_norm=torch.tensor([row[1:5] for row in rows]).reshape(-1, 4).float(),
        labels=torch.tensor([row[5] for row in rows], dtype=torch.int64),
        image_index=torch.tensor(images, dtype=torch.int64),
        ignored=torch.tensor([row[6] for row in rows], dtype=torch.bool),
        max_per_image=max((images.count(i) for i in images), default=0),
    )


def random_targets(images, count, generator):
    rows = []
    for image in range(images):
        for _ in range(count):
            cx, cy = generator.uniform(0.05, 0.95, 2)
            w, h = np.exp(generator.uniform(math.log(0.06), math.log(1.0), 2))
            rows.append((image, cx, cy, w, h, int(generator.integers(CLASSES))))
    return make_targets(rows)


CASES = {
    "random": random_targets(3, 5, np.random.default_rng(1)),
    "one cell, one anchor, two labels": make_targets(
        [(0, 0.5, 0.5, 0.30, 0.30, 1), (0, 0.52, 0.52, 0.31, 0.29, 3), (2, 0.2, 0.8, 0.9, 0.9, 0)]
    ),
    "a crowd in one cell": make_targets(
        [(1, 0.5 + i / 100, 0.6, 0.1 + i / 50, 0.25 - i / 50, i % CLASSES) for i in range(9)]
    ),
    "ignored regions": make_targets(
        [(0, 0.5, 0.5, 0.8, 0.8, 1, True), (0, 0.4, 0.5, 0.3, 0.3, 2), (1, 0.5, 0.5, 1, 1, 0, True)]
    ),
    "no truth": make_targets([]),
    "centres on the borders": make_targets(
        [(0, 0.0, 0.0, 0.1, 0.3, 1), (1, 1.0, 1.0, 0.2, 0.2, 2), (1, 0.0, 1.0, 0.4, 0.1, 3)]
    ),
    "on the edge of cells": make_targets([(2, 1 / 3, 2 / 3, 0.2, 0.5, 0), (2, 0.5, 0.5, 1, 1, 3)]),
    "tiny boxes": make_targets([(0, 0.97, 0.93, 0.002, 0.003, 0), (1, 0.41, 0.77, 0.01, 0.001, 2)]),
    "whole images": make_targets([(0, 0.5, 0.5, 1, 1, 1), (1, 0.5, 0.5, 1, 1, 0)]),
}
