import numpy as np
import pytest
import torch

import yolo.detection.anchors
from tests.detection.losses.cases import make_targets
from yolo.boxes import pairwise_shape_iou
from yolo.detection.anchors import count_distinct, fit_anchors, measure_fit, shape_iou
from yolo.detection.assign import assign_best_anchor
from yolo.detection.coders import AnchorCoder


def clusters(centres, *, each=50, spread=0.02, seed=0):
    """Boxes around some sizes, in any order."""
    rng = np.random.default_rng(seed)
    sizes = np.repeat(np.array(centres, float), each, axis=0)
    return rng.permutation(sizes * rng.uniform(1 - spread, 1 + spread, sizes.shape))


def test_average_iou_by_hand():
    """10 x 10 in 10 x 20: 1/2; 20 x 20 with 10 x 20: 1/2; 30 x 10 with 10 x 10: 1/3; itself: 1."""
    anchors = np.array([[10.0, 10.0], [10.0, 20.0]])
    fit = measure_fit(np.array([[10, 20], [20, 20], [30, 10], [10, 10.0]]), anchors)
    assert fit.average_iou == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4)
    assert fit.recall == 3 / 4  # an IoU of exactly 1/2 counts
    assert fit.counts.tolist() == [2, 2]
    assert shape_iou(np.array([[10.0, 10.0]]), anchors).tolist() == [[1, 0.5]]


def test_no_box_has_no_figure():
    fit = measure_fit(np.zeros((0, 2)), np.ones((3, 2)))
    assert np.isnan(fit.average_iou) and np.isnan(fit.recall) and fit.counts.tolist() == [0, 0, 0]


def test_boxes_go_where_the_loss_puts_them():
    """The same anchor as the assignment chooses, ties included."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 40, (500, 2)).astype(np.float32)
    anchors = np.array([[4, 4], [8, 6], [6, 8], [12, 12], [20, 20], [20, 20]], np.float32)
    wh, iou = torch.tensor(sizes), shape_iou(sizes, anchors)
    assert pairwise_shape_iou(wh, torch.tensor(anchors)).numpy() == pytest.approx(iou)
    boxes = torch.cat([torch.full((500, 2), 32.0), wh], dim=1)
    assignment = assign_best_anchor(
        make_targets([(0, *box, 0) for box in (boxes / 64).tolist()]),
        boxes,
        AnchorCoder(anchors_px=anchors.reshape(3, 2, 2).tolist(), stride_px=(8, 16, 32)),
        [torch.zeros(1, 2, side, side, 6) for side in (8, 4, 2)],
    )
    expected = np.bincount(assignment.level * 2 + assignment.anchor, minlength=6)
    assert expected[5] == 0 and expected[4] > 0
    assert measure_fit(sizes, anchors).counts.tolist() == expected.tolist()


def test_made_clusters_are_found_again():
    centres = [[10, 12], [30, 8], [20, 60], [90, 40], [100, 100], [200, 260]]  # by area
    fitted = fit_anchors(clusters(centres), 6)
    assert fitted == pytest.approx(np.array(centres, float), rel=0.01)
    assert measure_fit(clusters(centres), fitted).counts.tolist() == [50] * 6
    assert (fitted * 10 == np.round(fitted * 10)).all()  # in tenths


def test_a_centre_is_the_median():
    """Its average IoU is 0.767, that of the mean (12.7, 12) 0.756, of the best box 0.754."""
    sizes = np.array([[10, 10], [12, 14], [16, 12.0]])
    assert fit_anchors(sizes, 1).tolist() == [[12, 12]]


def test_the_seed_decides_all():
    sizes = clusters([[10, 20], [30, 30], [80, 50]], each=200, spread=0.8)
    once, again = fit_anchors(sizes, 9, seed=3), fit_anchors(sizes, 9, seed=3)
    assert (once == again).all()
    one_try = [fit_anchors(sizes, 9, seed=seed, restarts=1) for seed in range(5)]
    assert len({anchors.tobytes() for anchors in one_try}) > 1
    single = [measure_fit(sizes, anchors).average_iou for anchors in one_try]
    assert measure_fit(sizes, once).average_iou >= np.mean(single)


def test_every_anchor_has_a_box_and_they_rise_in_area():
    for seed in range(20):
        sizes = np.random.default_rng(seed).integers(1, 6, (12, 2)).astype(float)
        count = min(9, count_distinct(sizes))
        fitted = fit_anchors(sizes, count, seed=seed)
        assert measure_fit(sizes, fitted).counts.min() > 0
        assert (np.diff(fitted.prod(axis=1)) >= 0).all() and count_distinct(fitted) == count


def test_sizes_closer_than_a_tenth_keep_more_decimals():
    sizes = np.array([[5.01, 5.0], [5.03, 5.0], [9.0, 9.0]])
    assert fit_anchors(sizes, 3).tolist() == sizes.tolist()
    with pytest.raises(AssertionError, match="fewer different boxes"):
        fit_anchors(sizes[[0, 0, 1]], 3)


def test_many_boxes_are_sampled(monkeypatch):
    """The fit of a sample is nearly as good, and a size too rare for the sample is still there."""
    sizes = clusters([[10, 20], [30, 30], [80, 50], [120, 200]], each=1000, spread=0.7)
    full = measure_fit(sizes, fit_anchors(sizes, 9)).average_iou
    monkeypatch.setattr(yolo.detection.anchors, "MAX_BOXES", 500)
    assert measure_fit(sizes, fit_anchors(sizes, 9)).average_iou == pytest.approx(full, abs=0.01)
    rare = np.array([[10.0, 10.0]] * 5000 + [[50.0, 50.0]])
    assert fit_anchors(rare, 2).tolist() == [[10, 10], [50, 50]]
