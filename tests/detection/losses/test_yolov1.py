"""The YOLOv1 loss against Darknet's deltas, which tests/reference computes in loops."""

import math

import numpy as np
import pytest
import torch

from tests.detection.losses.cases import CASES, CELLS, CLASSES, CROWDED, make_targets
from tests.detection.losses.cases import make_v1 as make_loss
from tests.reference import yolov1 as reference
from yolo.detection.assign import assign_first_in_cell

OTHER_SCALES = {
    "rescore": False,
    "coord_scale": 2.0,
    "object_scale": 3.0,
    "no_object_scale": 0.7,
    "class_scale": 0.3,
}


def random_raw(images, boxes, seed=0):
    """Centres around their cell, sizes up to several images; in every other row far away, thin."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn((images, CELLS, CELLS, boxes * 5 + CLASSES), generator=generator)
    raw[:, ::2, :, 0 : boxes * 5 : 5] += 5.0
    raw[:, ::2, :, 2 : boxes * 5 : 5] *= 0.3
    return raw.requires_grad_()


@pytest.mark.parametrize("case", [*CASES, "crowded"])
@pytest.mark.parametrize("boxes", [2, 3])
@pytest.mark.parametrize("settings", [{}, OTHER_SCALES], ids=["darknet", "other scales"])
def test_gradient_is_darknets_delta(case, boxes, settings):
    raw, targets = random_raw(3, boxes), {**CASES, "crowded": CROWDED}[case]
    layer = reference.Layer(CELLS, boxes, CLASSES, **settings)
    sum(make_loss(boxes, **settings)([raw], targets, images_in_step=12).values()).backward()
    np.testing.assert_allclose(
        reference.to_darknet(raw.grad, layer) * 12,
        reference.gradient(raw.detach(), targets, layer),
        rtol=1e-5,
        atol=1e-7,
    )


def test_the_cases_reach_both_ways_of_choosing_a_box():
    """Some truths overlap a box of their cell and some none; some choose another than the first."""
    raw, targets = random_raw(3, 3), CROWDED
    loss = make_loss(3)
    assignment = assign_first_in_cell(targets, cells=CELLS, images=3)
    cells = raw[targets.image_index, assignment.row, assignment.column]
    placed = loss.place(raw, targets)
    box, overlap = loss._choose_box(loss.coder.split(cells)[0], placed.target)
    without = overlap == 0
    assert 9 < without.sum() < len(targets) - 9
    assert set(box[without].tolist()) == set(box[~without].tolist()) == {0, 1, 2}
    assert placed.owns.sum() < len(targets)


def test_terms_by_hand():
    """One truth, one box that hits half of it, all other numbers 0 but one confidence."""
    raw = torch.zeros(1, CELLS, CELLS, 2 * 5 + CLASSES)
    raw[0, 3, 3, :5] = torch.tensor([0.5, 0.5, 0.4, 0.8, 0.2])  # the left half of the truth's width
    raw[0, 3, 3, 9] = 0.3  # the other box of the cell is a point with confidence
    raw[0, 3, 3, 10:] = torch.tensor([0.0, 0.6, 0.1, 0.0])
    targets = make_targets([(0, 0.5, 0.5, 0.32, 0.64, 1)])
    terms = make_loss()([raw], targets, images_in_step=2)
    root = math.sqrt(0.32)
    expected = {
        "xy": 0.0,
        "wh": 5 * (0.4 - root) ** 2 / 2,
        "object": (0.5 - 0.2) ** 2 / 2,
        "no_object": 0.5 * 0.3**2 / 2,
        "class": (0.4**2 + 0.1**2) / 2,
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: value / 2 for name, value in expected.items()}, abs=1e-7
    )


def test_an_ignored_region_does_not_take_the_cell():
    """A difficult object before another in one cell: the other owns it."""
    truths = [(0, 0.5, 0.5, 0.1, 0.1, 0, True), (0, 0.5, 0.5, 0.3, 0.3, 1)]
    matches = make_loss().matches([random_raw(1, 2)], make_targets(truths))
    assert matches.counted.tolist() == [False, True] and matches.owned.sum() == 1


def test_matches_show_where_each_truth_is():
    raw = torch.zeros(2, CELLS, CELLS, 2 * 5 + CLASSES)
    raw[1, 2, 6, 5:10] = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.7])  # the second box fits
    raw[1, 2, 6, 10:] = torch.arange(4.0)
    truths = [(1, 6.5 / 7, 2.5 / 7, 0.25, 0.25, 3), (1, 6.6 / 7, 2.6 / 7, 0.1, 0.1, 0)]
    matches = make_loss().matches([raw], make_targets(truths))
    place = ((1 * 7 + 2) * 7 + 6) * 2 + 1  # image, row, column, box
    assert matches.objectness.shape == matches.owned.shape == (2 * 7 * 7 * 2,)
    assert matches.owned.nonzero().tolist() == [[place]]
    assert matches.objectness[place].item() == pytest.approx(0.7)
    assert matches.class_logits.tolist() == [[0, 1, 2, 3]] * 2
    assert matches.labels.tolist() == [3, 0] and matches.counted.tolist() == [True, False]
