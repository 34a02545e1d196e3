"""The YOLOv2 loss against Darknet's deltas, which tests/reference computes in loops."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.detection.losses.cases import CASES, CLASSES, make_targets, random_targets
from tests.detection.losses.devices import NoHostData
from tests.reference import yolov2 as reference
from yolo.detection.coders.anchor import AnchorCoder
from yolo.detection.losses.yolov2 import YOLOv2Loss
from yolo.records import Targets

ANCHORS = [[12, 16], [30, 34], [52, 86], [100, 60], [120, 130]]
SIZE = 160
EARLY, LATE = 12_736, 12_800  # batches of 64: the last one that is drawn to the anchors, the next


def coder():
    return AnchorCoder(anchors_px=[ANCHORS], stride_px=[32], class_activation="softmax")


def random_raw(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (images, len(ANCHORS), SIZE // 32, SIZE // 32, 5 + CLASSES)
    return torch.randn(shape, generator=generator).requires_grad_()


def assert_gradient_is_darknets(raw, targets, *, seen, **settings):
    """To 1e-5 relative; ``settings`` go to both sides. Returns the number of truths left over."""
    loss = YOLOv2Loss(coder=coder(), **settings)
    sum(loss([raw], targets, images_in_step=12, images_seen=seen).values()).backward()
    expected, dropped = reference.gradient(
        raw.detach(),
        targets,
        anchors_px=ANCHORS,
        size_px=SIZE,
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
        random_raw(3), CASES[case], seen=seen, assignment=assignment
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
    assert_gradient_is_darknets(random_raw(3), CASES["random"], seen=99, **settings)
    assert_gradient_is_darknets(random_raw(3), CASES["random"], seen=100, **settings)


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


def test_terms_add_up_over_micro_batches():
    raw, targets = random_raw(3), CASES["random"]
    loss = YOLOv2Loss(coder=coder(), assignment="global")
    whole = loss([raw], targets, 3, images_seen=0)
    assert set(whole) == {"xy", "wh", "object", "no_object", "class", "prior"}
    for name, value in whole.items():
        parts = 0
        for image in range(3):
            mine = targets.image_index == image
            part = Targets(
                targets.boxes_cxcywh_norm[mine],
                targets.labels[mine],
                torch.zeros(int(mine.sum()), dtype=torch.int64),
                targets.ignored[mine],
                int(mine.sum()),
            )
            parts += loss([raw[image : image + 1]], part, 3, images_seen=0)[name]
        assert value.item() > 0
        torch.testing.assert_close(parts, value)


def test_matches_are_what_the_loss_trains():
    """Of the crowd of nine in one cell the last owns its anchor, or the five best fits own one."""
    raw, targets = random_raw(3), CASES["a crowd in one cell"]
    for assignment, owners in (("darknet", 1), ("global", 5)):
        found = YOLOv2Loss(coder=coder(), assignment=assignment).matches([raw], targets)
        assert found.owned.sum() == found.counted.sum() == owners
        assert torch.equal(found.objectness, raw[..., 4].detach().sigmoid().flatten())
        assert found.class_logits.shape == (9, CLASSES) and not found.class_logits.requires_grad
        assert torch.equal(found.labels, targets.labels)
        places = found.owned.view(raw.shape[:4]).nonzero()
        expected = {tuple(raw[tuple(place)][5:].tolist()) for place in places}
        assert {tuple(row) for row in found.class_logits[found.counted].tolist()} == expected


def test_finite_for_any_finite_float16():
    generator = np.random.default_rng(2)
    values = np.array([0, 6e-8, 1, -1, 300, -300, 65504, -65504], np.float16)
    raw = torch.from_numpy(generator.choice(values, random_raw(2).shape)).requires_grad_()
    terms = YOLOv2Loss(coder=coder())([raw], random_targets(2, 4, generator), 2, images_seen=0)
    sum(terms.values()).backward()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert not raw.grad.isnan().any()


@pytest.mark.parametrize("assignment", ["darknet", "global"])
def test_never_waits_for_the_device(assignment):
    """On a pretended GPU: a value read on the host (.item(), boolean indexing) raises there."""
    with FakeTensorMode():
        loss = YOLOv2Loss(coder=coder(), assignment=assignment).to("cuda")
        raw = torch.randn(2, 5, 5, 5, 5 + CLASSES, device="cuda")
        targets = Targets(
            torch.rand(6, 4, device="cuda"),
            torch.zeros(6, dtype=torch.int64, device="cuda"),
            torch.zeros(6, dtype=torch.int64, device="cuda"),
            torch.zeros(6, dtype=torch.bool, device="cuda"),
            max_per_image=6,
        )
        with NoHostData():
            terms = loss([raw], targets, 2, images_seen=0)
            matches = loss.matches([raw], targets)
        assert all(term.device.type == "cuda" for term in terms.values())
        assert matches.owned.device.type == "cuda"
