"""The YOLOv3 loss against Darknet's deltas, which tests/reference computes in loops."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.detection.losses.cases import CASES, CLASSES, make_targets, random_targets
from tests.detection.losses.devices import NoHostData
from tests.reference import yolov3 as reference
from yolo.detection.coders.anchor import AnchorCoder
from yolo.detection.losses.yolov3 import YOLOv3Loss
from yolo.records import Targets

ANCHORS = [
    [[10, 13], [16, 30], [33, 23]],
    [[30, 61], [62, 45], [59, 119]],
    [[116, 90], [156, 198], [373, 326]],
]
STRIDES = (8, 16, 32)
SIZE = 96


def coder(**kwargs):
    return AnchorCoder(anchors_px=ANCHORS, stride_px=STRIDES, **kwargs)


def random_raw(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            images, 3, SIZE // s, SIZE // s, 5 + CLASSES, generator=generator
        ).requires_grad_()
        for s in STRIDES
    ]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ignore_threshold", [0.3, 0.7])
def test_gradient_is_darknets_delta(case, ignore_threshold):
    raw, targets = random_raw(3), CASES[case]
    loss = YOLOv3Loss(coder=coder(), ignore_threshold=ignore_threshold)
    sum(loss(raw, targets, images_in_step=12).values()).backward()
    expected = reference.gradients(
        [r.detach() for r in raw],
        targets,
        anchors_px=ANCHORS,
        size_px=SIZE,
        ignore_threshold=ignore_threshold,
    )
    for ours, gradient in zip(raw, expected, strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), gradient / 12, rtol=1e-5, atol=1e-7)


def test_terms_add_up_over_micro_batches():
    targets = CASES["random"]
    raw = random_raw(3)
    loss = YOLOv3Loss(coder=coder())
    whole = loss(raw, targets, 3)
    for name in ("xy", "wh", "object", "no_object", "class"):
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
            parts += loss([r[image : image + 1] for r in raw], part, 3)[name]
        assert whole[name].item() > 0
        torch.testing.assert_close(parts, whole[name])


@pytest.mark.parametrize("class_loss", ["bce", "cross_entropy"])
def test_finite_for_any_finite_float16(class_loss):
    generator = np.random.default_rng(2)
    targets = random_targets(2, 4, generator)
    values = np.array([0, 6e-8, 1, -1, 300, -300, 65504, -65504], np.float16)
    raw = [
        torch.from_numpy(
            generator.choice(values, (2, 3, SIZE // s, SIZE // s, 5 + CLASSES))
        ).requires_grad_()
        for s in STRIDES
    ]
    terms = YOLOv3Loss(coder=coder(), class_loss=class_loss)(raw, targets, 2)
    sum(terms.values()).backward()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert all(r.grad.float().nan_to_num(posinf=0, neginf=0).isfinite().all() for r in raw)
    assert not any(r.grad.isnan().any() for r in raw)


def test_class_weights_scale_their_class_alone():
    targets = make_targets([(0, 0.5, 0.5, 0.3, 0.3, 1)])
    raw = random_raw(1)
    plain = YOLOv3Loss(coder=coder(), class_loss="cross_entropy")(raw, targets, 1)
    weights = [1.0, 2.5, 1.0, 1.0]
    heavy = YOLOv3Loss(coder=coder(), class_loss="cross_entropy", class_weights=weights)(
        raw, targets, 1
    )
    torch.testing.assert_close(heavy["class"], plain["class"] * 2.5)
    torch.testing.assert_close(heavy["object"], plain["object"])


def test_never_waits_for_the_device():
    """On a pretended GPU: a value read on the host (.item(), boolean indexing) raises there."""
    with FakeTensorMode():
        loss = YOLOv3Loss(coder=coder()).to("cuda")
        raw = [torch.randn(2, 3, SIZE // s, SIZE // s, 9, device="cuda") for s in STRIDES]
        targets = Targets(
            torch.rand(6, 4, device="cuda"),
            torch.zeros(6, dtype=torch.int64, device="cuda"),
            torch.zeros(6, dtype=torch.int64, device="cuda"),
            torch.zeros(6, dtype=torch.bool, device="cuda"),
            max_per_image=6,
        )
        with NoHostData():
            terms = loss(raw, targets, 2)
            matches = loss.matches(raw, targets)
        assert all(term.device.type == "cuda" for term in terms.values())
        assert matches.owned.device.type == "cuda"
        with pytest.raises(Exception, match="nonzero"):
            raw[0][raw[0] > 0].sum()
