"""The switches of newer recipes against what others wrote; each is in ``SWITCHES`` of the cases."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import (
    box_iou,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from tests.detection.losses.cases import (
    BY_RATIO,
    CASES,
    CROWDED,
    GENERATIONS,
    V2,
    V2_SIZE,
    V3,
    V3_SIZE,
    make_targets,
    make_v2,
    make_v3,
)
from yolo.boxes import cxcywh_to_xyxy

DETACHED = {"v1", "v2", "v2 global", "v3 rescore", "v3 ciou"}
"""Part of their loss has no gradient, on purpose: the target of objectness, the weight of CIoU."""


def double_raw(generation, images=3, seed=0):
    return [raw.detach().double().requires_grad_() for raw in generation.random_raw(images, seed)]


def gradients(terms, raw):
    total = torch.stack(list(terms.values())).sum()
    return torch.autograd.grad(total, raw, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("name", [name for name in GENERATIONS if name not in DETACHED])
@pytest.mark.parametrize("case", ["random", "a crowd in one cell", "ignored regions"])
def test_the_gradient_is_that_of_the_loss(name, case):
    generation = GENERATIONS[name]
    raw, loss = double_raw(generation), generation.make_loss()
    boxes = CASES[case].boxes_cxcywh_norm.double()  # with targets of float32 BCE is float32
    targets = replace(CASES[case], boxes_cxcywh_norm=boxes)

    def total(*maps):
        return torch.stack(list(loss(maps, targets, 3, images_seen=0).values())).sum()

    assert torch.autograd.gradcheck(total, raw, fast_mode=True)


def owned_rows(loss, raw, targets, size_px):
    """Of each owned place: its raw numbers, decoded box, its owner's box, and all labels there."""
    at = loss.place(raw, targets).assignment
    boxes = [loss.coder.level_boxes(values, level) for level, values in enumerate(raw)]
    truths = cxcywh_to_xyxy(targets.boxes_cxcywh_norm.double()) * size_px
    for pair in at.owns.nonzero().flatten().tolist():
        truth, level = at.truth[pair], at.level[pair]
        index = targets.image_index[truth], at.anchor[pair], at.row[pair], at.column[pair]
        labels = targets.labels[at.truth[at.owner == pair]]
        yield raw[level][index], boxes[level][index], truths[truth], labels


LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    ("make", "generation", "size_px"), [(make_v3, V3, V3_SIZE), (make_v2, V2, V2_SIZE)]
)
def test_the_box_term_is_torchvisions_loss_of_the_decoded_boxes(make, generation, size_px, kind):
    raw, loss = double_raw(generation), make(box=kind, coord_scale=2.5, scale_xy=1.1)
    term = loss(raw, CROWDED, 3)["box"]
    rows = list(owned_rows(loss, raw, CROWDED, size_px))
    assert 20 < len(rows) <= len(CROWDED)
    expected = 2.5 / 3 * sum(LOSSES[kind](box, truth) for _, box, truth, _ in rows)
    torch.testing.assert_close(term, expected, rtol=1e-5, atol=0)
    ours, theirs = gradients({"box": term}, raw), gradients({"box": expected}, raw)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_with_rescore_objectness_learns_the_iou():
    raw, loss = double_raw(V3), make_v3(rescore=True)
    term = loss(raw, CROWDED, 3)["object"]
    expected = sum(
        F.binary_cross_entropy_with_logits(row[4], box_iou(box[None], truth[None])[0, 0].detach())
        for row, box, truth, _ in owned_rows(loss, raw, CROWDED, V3_SIZE)
    )
    torch.testing.assert_close(term * 3, expected, rtol=1e-5, atol=0)
    for one, other in zip(
        gradients({"object": term * 3}, raw), gradients({"object": expected}, raw), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "generation"), [(make_v2, V2), (partial(make_v3, class_loss="cross_entropy"), V3)]
)
def test_label_smoothing_of_exclusive_classes_is_pytorchs(make, generation):
    raw, loss = double_raw(generation), make(label_smoothing=0.3)
    size_px = V2_SIZE if generation is V2 else V3_SIZE
    expected = sum(
        F.cross_entropy(row[5:], labels[-1], label_smoothing=0.3)
        for row, _, _, labels in owned_rows(loss, raw, CROWDED, size_px)
    )
    torch.testing.assert_close(loss(raw, CROWDED, 1)["class"], expected)


def test_scales_are_factors_on_the_terms():
    scales = {"coord_scale": 2.0, "object_scale": 3.0, "no_object_scale": 0.5, "class_scale": 7.0}
    raw = V3.random_raw(3)
    plain, scaled = make_v3()(raw, CROWDED, 3), make_v3(**scales)(raw, CROWDED, 3)
    factors = {"xy": 2, "wh": 2, "object": 3, "no_object": 0.5, "class": 7}
    for name, factor in factors.items():
        torch.testing.assert_close(scaled[name], factor * plain[name])


def test_a_place_with_two_truths_learns_the_later_box_and_both_labels():
    """Here one's neighbouring cell is the other's own: row 1, column 2 of stride 32."""
    loss = make_v3(assign=BY_RATIO, scale_xy=2.0, box="giou")
    one, other = (0, 63.0, 48.0, 100.0, 100.0, 1), (0, 65.0, 50.0, 110.0, 90.0, 3)
    targets = make_targets(
        [(i, *(v / V3_SIZE for v in box), label) for i, *box, label in (one, other)]
    )
    raw = [r.detach().zero_().requires_grad_() for r in V3.random_raw(1)]
    a = loss.place(raw, targets).assignment
    place = (a.level == 2) & (a.anchor == 0) & (a.row == 1) & (a.column == 2)
    assert a.truth[place].tolist() == [0, 1] and a.owns[place].tolist() == [False, True]
    loss(raw, targets, 1)["class"].backward()
    assert raw[2].grad[0, 0, 1, 2, 5:].tolist() == [0.5, -0.5, 0.5, -0.5]
