"""The YOLOv3 loss against Darknet's deltas, which tests/reference computes in loops."""

import numpy as np
import pytest
import torch

from tests.detection.losses.cases import CASES, V3, V3_ANCHORS, V3_SIZE, make_targets, make_v3
from tests.reference import yolov3 as reference


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
