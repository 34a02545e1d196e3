"""A scene that can be judged by hand, and the figures beside pycocotools'."""

import numpy as np
import pytest

from tests.coco_files import coco_truth
from yolo.evaluate.metrics.coco import CocoMetric
from yolo.evaluate.metrics.detection_errors import find_errors
from yolo.evaluate.metrics.metric import NOT_COUNTED, RIGHT, WRONG, DetectedBoxes

CAT, DOG = 3, 1


def truth(annotations, images=2, categories=(CAT, DOG)):
    """annotations: (image, category, xyxy, crowd)."""
    sizes_hw = dict.fromkeys(range(images), (1000, 1000))
    return coco_truth(sizes_hw, annotations, dict.fromkeys(categories, "the same"))


SCENE = truth(
    [
        (0, CAT, (0, 0, 100, 100), 0),
        (0, DOG, (200, 0, 300, 100), 0),
        (0, CAT, (400, 0, 500, 100), 1),
        (1, CAT, (0, 0, 50, 50), 0),
        (1, DOG, (500, 500, 520, 520), 0),
    ]
)
FOUND = [  # image, category, box, score, verdict
    (0, CAT, (0, 0, 100, 90), 0.95, RIGHT),
    (0, CAT, (0, 0, 100, 80), 0.85, WRONG),  # duplicate
    (0, CAT, (200, 0, 300, 90), 0.75, WRONG),  # wrong class
    (0, CAT, (410, 10, 490, 90), 0.65, NOT_COUNTED),  # in a crowd
    (1, CAT, (0, 0, 50, 20), 0.55, WRONG),  # badly placed, IoU 0.4
    (1, DOG, (800, 800, 900, 900), 0.45, WRONG),  # background
    (0, DOG, (200, 0, 300, 100), 0.35, RIGHT),
    (1, DOG, (0, 0, 50, 15), 0.25, WRONG),  # class and place, IoU 0.3
    (1, CAT, (np.nan, 0, np.inf, 9), np.nan, WRONG),
]


def judge(ground_truth, found):
    image, category, boxes, scores = ([row[i] for row in found] for i in range(4))
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image, category, scores = np.array(image, int), np.array(category, int), np.array(scores)
    return find_errors(ground_truth, DetectedBoxes(image, category, boxes, scores))


def test_every_kind_of_error():
    errors = judge(SCENE, FOUND)
    assert errors.verdicts.tolist() == [row[4] for row in FOUND]
    assert errors.found_by.tolist() == [0, 6, -1, -1, -1]
    counts = {kind: error.count for kind, error in errors.tide.items() if kind not in ("FP", "FN")}
    assert counts == {"Cls": 1, "Loc": 1, "Both": 1, "Dupe": 1, "Bkg": 2, "Miss": 1}
    assert errors.stats["AP50"] + errors.tide["FP"].ap_lost == pytest.approx(0.5, abs=0.01)
    # F1 of one right box of 1: 2 / (1 + 4); of two right boxes of 6: 4 / (6 + 4), the same
    assert errors.f1 == pytest.approx(0.4)
    assert (errors.conf, errors.precision, errors.recall) == (0.95, 1.0, 0.25)
    # rows DOG, CAT, nothing; columns DOG, CAT, missed: the categories' ids ascend
    assert errors.confusion.tolist() == [[0, 0, 2], [0, 1, 1], [0, 0, 0]]


def test_the_figures_are_those_of_pycocotools():
    generator = np.random.default_rng(1)
    corners = generator.uniform(0, 300, (60, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(8, 150, (60, 2))], axis=1)
    images, categories = generator.integers(0, 5, 60), generator.choice([CAT, DOG, 9], 60)
    annotations = list(zip(images.tolist(), categories.tolist(), boxes, [0] * 60, strict=True))
    ground_truth = truth(annotations, images=5, categories=(CAT, DOG, 9, 11))
    found = boxes + generator.normal(0, 6, boxes.shape)
    scores = generator.uniform(0, 1, 60)
    found = DetectedBoxes(images, categories, found, scores)
    errors = find_errors(ground_truth, found)
    metric = CocoMetric(ground_truth=ground_truth, backend="pycocotools")
    reference = metric.evaluate(found)
    known = {name: value if value >= 0 else np.nan for name, value in reference.stats.items()}
    np.testing.assert_allclose(list(errors.stats.values()), list(known.values()))
    for category, figures in reference.per_class.items():
        mine = errors.per_class[category]
        for name, value in figures.items():
            np.testing.assert_allclose(mine[name], value if value >= 0 else np.nan)
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        mean = np.nanmean([figures[name] for figures in errors.per_class.values()])
        np.testing.assert_allclose(mean, errors.stats[name])
    assert np.isnan(errors.per_class[11]["AP"])

    def f1(conf):
        kept = scores >= conf
        right = (errors.verdicts[kept] == RIGHT).sum()
        return 2 * right / (kept.sum() + 60)

    assert errors.f1 == pytest.approx(max(f1(conf) for conf in scores)) == f1(errors.conf)


def test_the_calibration_by_hand():
    """Of four boxes of confidence 0.85 one is right; of two of 0.05 none."""
    ground_truth = truth([(0, CAT, (0, 0, 100, 100), 0)])
    far = (500, 500, 600, 600)
    found = [(0, CAT, (0, 0, 100, 100), 0.85, 0), *[(0, CAT, far, 0.85, 0)] * 3]
    errors = judge(ground_truth, [*found, *[(0, CAT, far, 0.05, 0)] * 2])
    low, high = (entry for entry in errors.calibration if entry.count)
    assert (low.count, low.share_right, high.count, high.share_right) == (2, 0, 4, 0.25)
    assert errors.calibration_error == pytest.approx((2 * 0.05 + 4 * 0.6) / 6)


def test_nothing_found_and_nothing_to_find():
    nothing = judge(SCENE, [])
    assert nothing.found_by.tolist() == [-1] * 5 and nothing.f1 == nothing.conf == 0
    assert nothing.tide["Miss"].count == 4 and nothing.stats["AP"] == 0
    empty = judge(truth([]), FOUND[:1])
    assert empty.verdicts.tolist() == [WRONG] and np.isnan(empty.stats["AP"])
