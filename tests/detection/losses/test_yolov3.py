"""The YOLOv3 loss against Darknet's deltas, which tests/reference computes in loops and stores."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from tests.detection.losses.cases import CASES, V3, V3_ANCHORS, V3_SIZE, make_targets, make_v3
from tests.reference import make_alexeyab as alexeyab
from tests.reference import yolov3 as reference
from yolo.detection.assign import assign_best_anchor, assign_by_shape_iou
from yolo.detection.coders import AnchorCoder
from yolo.detection.losses.anchor import AnchorSettings
from yolo.detection.losses.yolov3 import YOLOv3Loss


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ignore_threshold", [0.3, 0.7])
def test_gradient_is_darknets_delta(case, ignore_threshold):
    raw, targets = V3.random_raw(3), CASES[case]
    loss = make_v3(ignore_threshold=ignore_threshold)
    sum(loss(raw, targets, images_in_step=12).values()).backward()
    expected = reference.gradients(
        [r.detach() for r in raw],
        targets,
        anchors_px=V3_ANCHORS,
        size_px=V3_SIZE,
        ignore_threshold=ignore_threshold,
    )
    for ours, gradient in zip(raw, expected, strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), gradient / 12, rtol=1e-5, atol=1e-7)


def test_class_weights_scale_only_their_class():
    targets = make_targets([(0, 0.5, 0.5, 0.3, 0.3, 1)])
    raw = V3.random_raw(1)
    plain = make_v3(class_loss="cross_entropy")(raw, targets, 1)
    weights = [1.0, 2.5, 1.0, 1.0]
    heavy = make_v3(class_loss="cross_entropy", class_weights=weights)(raw, targets, 1)
    torch.testing.assert_close(heavy["class"], plain["class"] * 2.5)
    torch.testing.assert_close(heavy["object"], plain["object"])


@pytest.mark.parametrize("case", alexeyab.CASES)
def test_gradient_is_that_of_alexeyabs_c(case):
    """The compiled C's, stored by tests/reference/make_alexeyab.py; nothing is ignored."""
    settings = alexeyab.DEFAULTS | alexeyab.CASES[case]
    coder = AnchorCoder(
        anchors_px=alexeyab.ANCHORS_PX,
        stride_px=alexeyab.STRIDES_PX,
        scale_xy=settings["scale_x_y"],
    )
    assign = partial(assign_by_shape_iou, threshold=settings["iou_thresh"])
    shared = AnchorSettings(
        assign=assign_best_anchor if settings["iou_thresh"] == 1 else assign,
        ignore_threshold=1.0,
        coord_scale=settings["iou_normalizer"],
        label_smoothing=settings["label_smooth_eps"],
        object_scale=settings["obj_normalizer"],
        no_object_scale=settings["obj_normalizer"],
    )
    loss = YOLOv3Loss(coder=coder, settings=shared)
    size_px = alexeyab.SIZE_PX
    rows = [(0, *(v / size_px for v in box), label) for *box, label in alexeyab.TRUTHS]
    raw = [torch.from_numpy(values).requires_grad_() for values in alexeyab.raw_maps()]
    targets = make_targets(rows)
    sum(loss(raw, targets, images_in_step=1).values()).backward()
    stored = json.loads(alexeyab.PATH.read_text())[case]
    for ours, delta in zip(raw, stored, strict=True):
        np.testing.assert_allclose(
            ours.grad.numpy().flatten(), -np.array(delta), rtol=1e-4, atol=1e-6
        )
    pairs = int(loss.matches(raw, targets).counted.sum())
    assert pairs > len(rows) if settings["iou_thresh"] < 1 else pairs == len(rows)
