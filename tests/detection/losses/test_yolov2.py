"""The YOLOv2 loss against Darknet's deltas, which tests/reference computes in loops."""

import numpy as np
import pytest
import torch

from tests.detection.losses import cases
from tests.detection.losses.cases import CASES, CLASSES, V2, V2_ANCHORS, make_targets, make_v2
from tests.reference import yolov2 as reference
from yolo.detection.assign import assign_best_anchor, assign_greedily
from yolo.detection.coders import AnchorCoder
from yolo.detection.losses.yolov2 import YOLOv2Loss

ASSIGN = {"darknet": assign_best_anchor, "global": assign_greedily}
EARLY, LATE = 12_736, 12_800  # batches of 64: the last one that is drawn to the anchors, the next


def assert_gradient_is_darknets(raw, targets, *, seen, assignment="darknet", **settings):
    """To 1e-5 relative; ``settings`` go to both sides. Returns the number of truths left over."""
    loss = make_v2(assign=ASSIGN[assignment], **settings)
    sum(loss([raw], targets, images_in_step=12, images_seen=seen).values()).backward()
    expected, dropped = reference.gradient(
        raw.detach(),
        targets,
        anchors_px=V2_ANCHORS,
        size_px=cases.V2_SIZE,
        assignment=assignment,
        early=seen is not None and seen < settings.get("prior_images", LATE),
        **{name: value for name, value in settings.items() if name != "prior_images"},
    )
    np.testing.assert_allclose(raw.grad.numpy() * 12, expected, rtol=1e-5, atol=1e-6)
    return dropped


@pytest.mark.parametrize("seen", [None, EARLY, LATE])
@pytest.mark.parametrize("assignment", ["darknet", "global"])
@pytest.mark.parametrize("case", CASES)
def test_gradient_is_darknets_delta(case, assignment, seen):
    dropped = assert_gradient_is_darknets(
        V2.random_raw(3)[0], CASES[case], seen=seen, assignment=assignment
    )
    assert dropped == (4 if assignment == "global" and case == "a crowd in one cell" else 0)


def test_every_setting_reaches_the_gradient():
    settings = {
        "ignore_threshold": 0.2,
        "coord_scale": 2.5,
        "object_scale": 3.0,
        "no_object_scale": 0.7,
        "class_scale": 1.9,
        "rescore": False,
        "prior_images": 100,
    }
    assert_gradient_is_darknets(V2.random_raw(3)[0], CASES["random"], seen=99, **settings)
    assert_gradient_is_darknets(V2.random_raw(3)[0], CASES["random"], seen=100, **settings)


def test_objectness_learns_the_iou_though_not_through_it():
    """One cell of 32 px, predicted as its anchor: the truth, half as wide, overlaps by a half."""
    loss = YOLOv2Loss(
        coder=AnchorCoder(anchors_px=[[[16, 16]]], stride_px=[32], class_activation="softmax")
    )
    raw = torch.zeros(1, 1, 1, 1, 5 + CLASSES, requires_grad=True)
    terms = loss([raw], make_targets([(0, 0.5, 0.5, 0.25, 0.5, 2)]), 1, images_seen=0)
    assert terms["object"].item() == 0, "sigmoid(0) is the IoU"
    assert terms["xy"].item() == terms["no_object"].item() == terms["prior"].item() == 0
    assert terms["wh"].item() == pytest.approx((2 - 0.125) * np.log(2) ** 2 / 2)
    assert terms["class"].item() == pytest.approx(np.log(CLASSES))
    terms["object"].backward()
    assert raw.grad.abs().sum() == 0


def test_matches_are_what_the_loss_trains():
    """Of the crowd of nine in one cell the last owns its anchor, or the five best fits own one."""
    raw, targets = V2.random_raw(3)[0], CASES["a crowd in one cell"]
    for assignment, owners in (("darknet", 1), ("global", 5)):
        found = make_v2(assign=ASSIGN[assignment]).matches([raw], targets)
        assert found.owned.sum() == found.counted.sum() == owners
        assert torch.equal(found.objectness, raw[..., 4].detach().sigmoid().flatten())
        assert found.class_logits.shape == (9, CLASSES) and not found.class_logits.requires_grad
        assert torch.equal(found.labels, targets.labels)
        places = found.owned.view(raw.shape[:4]).nonzero()
        expected = {tuple(raw[tuple(place)][5:].tolist()) for place in places}
        assert {tuple(row) for row in found.class_logits[found.counted].tolist()} == expected
