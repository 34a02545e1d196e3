"""What tries the losses: truths that are random or easily mistaken, and all three generations."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from yolo.detection.assign import (
    assign_by_ratio,
    assign_by_shape_iou,
    assign_greedily,
)
from yolo.detection.coders import AnchorCoder, GridCoder
from yolo.detection.losses import yolov2, yolov3
from yolo.detection.losses.anchor import AnchorSettings
from yolo.detection.losses.loss import Loss
from yolo.detection.losses.yolov1 import YOLOv1Loss
from yolo.detection.losses.yolov2 import YOLOv2Loss
from yolo.detection.losses.yolov3 import YOLOv3Loss
from yolo.records import Targets

CLASSES = 4
CELLS = 7
V2_ANCHORS = [[12, 16], [30, 34], [52, 86], [100, 60], [120, 130]]
V2_SIZE = 160
V3_ANCHORS = [
    [[10, 13], [16, 30], [33, 23]],
    [[30, 61], [62, 45], [59, 119]],
    [[116, 90], [156, 198], [373, 326]],
]
V3_STRIDES, V3_SIZE = (8, 16, 32), 96


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
CROWDED = random_targets(3, 12, np.random.default_rng(3))


def make_v1(boxes: int = 2, **settings) -> YOLOv1Loss:
    return YOLOv1Loss(coder=GridCoder(cells=CELLS, boxes=boxes), **settings)


def recorded(default: AnchorSettings, settings: dict) -> dict:
    """The arguments of a loss, with those of both generations in their record."""
    shared = {field.name for field in fields(AnchorSettings)} & set(settings)
    own = {name: value for name, value in settings.items() if name not in shared}
    return {"settings": replace(default, **{name: settings[name] for name in shared}), **own}


def make_v2(*, scale_xy: float = 1.0, **settings) -> YOLOv2Loss:
    coder = AnchorCoder(
        anchors_px=[V2_ANCHORS], stride_px=[32], class_activation="softmax", scale_xy=scale_xy
    )
    return YOLOv2Loss(coder=coder, **recorded(yolov2.DARKNET, settings))


def make_v3(*, scale_xy: float = 1.0, **settings) -> YOLOv3Loss:
    coder = AnchorCoder(anchors_px=V3_ANCHORS, stride_px=V3_STRIDES, scale_xy=scale_xy)
    return YOLOv3Loss(coder=coder, **recorded(yolov3.DARKNET, settings))


class Generation(NamedTuple):
    """A loss, and the shapes of its raw maps but for the images."""

    make_loss: Callable[[], Loss]
    shapes: list[tuple[int, ...]]
    terms: tuple[str, ...] = ("xy", "wh", "object", "class", "no_object")

    def random_raw(self, images: int, seed: int = 0) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn((images, *shape), generator=generator).requires_grad_()
            for shape in self.shapes
        ]


V1 = Generation(make_v1, [(CELLS, CELLS, 10 + CLASSES)])
V2 = Generation(
    make_v2,
    [(len(V2_ANCHORS), V2_SIZE // 32, V2_SIZE // 32, 5 + CLASSES)],
    (*V1.terms, "prior"),
)
V3 = Generation(make_v3, [(3, V3_SIZE // s, V3_SIZE // s, 5 + CLASSES) for s in V3_STRIDES])
BOX = ("box", "object", "class", "no_object")
BY_IOU = partial(assign_by_shape_iou, threshold=0.213)
BY_RATIO = partial(assign_by_ratio, factor=4.0)


def switched(generation: Generation, **settings) -> Generation:
    make = make_v2 if generation is V2 else make_v3
    terms = generation.terms
    if "box" in settings:
        terms = (*BOX, "prior") if generation is V2 else BOX
    return generation._replace(make_loss=partial(make, **settings), terms=terms)


SWITCHES = {
    **{f"v3 {kind}": switched(V3, box=kind) for kind in ("iou", "giou", "diou", "ciou")},
    "v2 giou": switched(V2, box="giou", rescore=False),
    "v3 rescore": switched(V3, rescore=True),
    "v3 iou_threshold": switched(V3, assign=BY_IOU),
    "v3 ratio": switched(V3, assign=BY_RATIO, scale_xy=2.0),
    "v2 ratio": switched(V2, assign=BY_RATIO, scale_xy=2.0, rescore=False),
    "v3 label smoothing": switched(V3, label_smoothing=0.1),
    "v3 scale_xy": switched(V3, scale_xy=1.2),
}
"""Each switch of the newer recipes, alone or with what it needs."""

GENERATIONS = {
    "v1": V1,
    "v2": V2,
    "v2 global": V2._replace(make_loss=lambda: make_v2(assign=assign_greedily)),
    "v3": V3,
    "v3 cross entropy": V3._replace(make_loss=lambda: make_v3(class_loss="cross_entropy")),
    **SWITCHES,
}
