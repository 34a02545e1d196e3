import time
from collections.abc import Sequence

import numpy as np
import pytest

from tests.reference import voc_metric as reference
from yolo.config.schema.training import MONITORS_OF_METRIC
from yolo.evaluate.metrics import coco, voc
from yolo.evaluate.metrics.metric import DetectedBoxes, MetricResult
from yolo.evaluate.metrics.voc import VocMetric

# As in an XML: pixels from 1 on, the last one inside. Image, class, box, difficult.
TRUTHS: list[reference.Truth] = [
    (1, 7, (1, 1, 10, 10), False),
    (1, 7, (21, 21, 40, 40), False),
    (2, 7, (1, 1, 20, 20), True),
    (2, 7, (31, 1, 50, 20), False),
    (2, 7, (1, 31, 20, 50), False),
]


def continuous(boxes: Sequence[reference.Box]) -> np.ndarray:
    """The frame of the project: (xmin - 1, ymin - 1, xmax, ymax)."""
    return np.array(boxes, np.float64).reshape(-1, 4) - [1, 1, 0, 0]


def metric(
    truths: Sequence[reference.Truth], classes: tuple[int, ...] = (7,), **settings: float
) -> VocMetric:
    return VocMetric(
        image_ids=np.array([t[0] for t in truths], np.int64),
        category_ids=np.array([t[1] for t in truths], np.int64),
        boxes_xyxy_px=continuous([t[2] for t in truths]),
        difficult=np.array([t[3] for t in truths], bool),
        all_category_ids=classes,
        **settings,
    )


def arrays(detections: Sequence[reference.Detection]) -> DetectedBoxes:
    return DetectedBoxes(
        np.array([d[0] for d in detections], np.int64),
        np.array([d[1] for d in detections], np.int64),
        continuous([d[2] for d in detections]),
        np.array([d[3] for d in detections]),
    )


def test_by_hand() -> None:
    """Four truths are to be found: the one at the upper left of image 2 is difficult."""
    detections: list[reference.Detection] = [
        # a perfect box: right. 1 of 1 right, 1 of 4 found
        (1, 7, (1, 1, 10, 10), 0.9),
        # 80 of 100 pixels of the same truth: it has been found, so wrong. 1 of 2, 1 of 4
        (1, 7, (1, 1, 10, 8), 0.8),
        # the difficult one: neither right nor wrong
        (2, 7, (1, 1, 20, 20), 0.7),
        # 200 of 400 pixels, just an IoU of 0.5: right. 2 of 3, 2 of 4
        (2, 7, (31, 1, 50, 10), 0.6),
        # nothing is there: wrong. 2 of 4, 2 of 4
        (1, 7, (60, 60, 80, 80), 0.5),
        # right. 3 of 5, 3 of 4
        (2, 7, (1, 31, 20, 50), 0.4),
        # 180 of 400 pixels, an IoU of 0.45: wrong. 3 of 6, 3 of 4
        (1, 7, (21, 21, 40, 29), 0.3),
    ]
    scorer = metric(TRUTHS, fixed_conf=0.6)
    curve = scorer.curves(arrays(detections))[7]
    assert curve.truths == 4
    assert curve.scores.tolist() == [0.9, 0.8, 0.6, 0.5, 0.4, 0.3]
    assert curve.precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 3 / 5, 3 / 6])
    assert curve.recall == pytest.approx([1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4, 3 / 4])

    # the best precision from a recall on: 1 up to 1/4, 2/3 up to 2/4, 3/5 up to 3/4, then 0
    all_points = 1 / 4 * 1 + 1 / 4 * 2 / 3 + 1 / 4 * 3 / 5
    # at 0, 0.1, 0.2 | 0.3, 0.4, 0.5 | 0.6, 0.7 | 0.8, 0.9, 1
    eleven_points = (3 * 1 + 3 * 2 / 3 + 2 * 3 / 5 + 3 * 0) / 11
    # boxes of at least 0.6: the curve ends at a recall of 2/4
    fixed = 1 / 4 * 1 + 1 / 4 * 2 / 3
    stats = {"mAP": all_points, "mAP_11": eleven_points, "mAP_fixed": fixed}
    backwards = scorer.evaluate(DetectedBoxes(*(column[::-1] for column in arrays(detections))))
    for result in (scorer.evaluate(arrays(detections)), backwards):
        assert result.stats == pytest.approx(stats)
        assert list(result.per_class) == [7]
        assert list(result.per_class[7].values()) == pytest.approx(list(stats.values()))
    assert result.table.splitlines() == [
        " Mean Average Precision  (mAP      ) @[ IoU=0.50 | all points      ] = 0.567",
        " Mean Average Precision  (mAP_11   ) @[ IoU=0.50 | 11 points       ] = 0.564",
        " Mean Average Precision  (mAP_fixed) @[ IoU=0.50 | confidence 0.6  ] = 0.417",
    ]


def test_truth_as_detections_is_perfect() -> None:
    detections = [(image, label, box, 0.5) for image, label, box, _ in TRUTHS]
    for iou in (0.5, 1.0):
        result = metric(TRUTHS, iou=iou).evaluate(arrays(detections))
        assert result.stats == {"mAP": 1, "mAP_11": 1, "mAP_fixed": 1}


def test_the_best_truth_decides_even_where_it_is_difficult_or_taken() -> None:
    """As the kit: a detection never turns to its second best truth."""
    easy, hard = (1, 1, 20, 20), (1, 1, 24, 20)
    both = [(1, 7, easy, False), (1, 7, hard, True)]
    on_the_hard_one = metric(both).evaluate(arrays([(1, 7, hard, 0.9)]))
    assert on_the_hard_one.stats["mAP"] == 0
    assert metric(both).evaluate(arrays([(1, 7, easy, 0.9)])).stats["mAP"] == 1

    both = [(1, 7, easy, False), (1, 7, hard, False)]
    twice = [(1, 7, easy, 0.9), (1, 7, easy, 0.8)]  # the second overlaps the other one by 0.83
    assert metric(both).evaluate(arrays(twice)).stats["mAP"] == 0.5


def test_a_detection_needs_its_own_class_and_image() -> None:
    box = (1, 1, 20, 20)
    scorer = metric([(1, 7, box, False), (2, 8, box, False)], classes=(7, 8))
    crossed = scorer.evaluate(arrays([(1, 8, box, 0.9), (2, 7, box, 0.9)]))
    assert crossed.stats["mAP"] == 0
    half = scorer.evaluate(arrays([(1, 7, box, 0.9), (2, 7, box, 0.95), (9, 99, box, 1.0)]))
    assert [half.per_class[label]["AP"] for label in (7, 8)] == [0.5, 0]
    assert half.stats["mAP"] == 0.25


def test_equal_scores_keep_their_order() -> None:
    right, wrong = (1, 7, (1, 1, 10, 10), 0.5), (1, 7, (50, 50, 60, 60), 0.5)
    scorer = metric(TRUTHS[:1])
    assert scorer.evaluate(arrays([right, wrong])).stats["mAP"] == 1
    assert scorer.evaluate(arrays([wrong, right])).stats["mAP"] == 0.5


def test_what_has_no_truth_is_left_out_of_the_mean() -> None:
    """Class 8 has a difficult truth alone, class 9 none."""
    box = (1, 1, 10, 10)
    scorer = metric([(1, 7, box, False), (1, 8, box, True)], classes=(7, 8, 9))
    result = scorer.evaluate(arrays([(1, label, box, 0.9) for label in (7, 8, 9)]))
    assert result.stats == {"mAP": 1, "mAP_11": 1, "mAP_fixed": 1}
    assert [result.per_class[label]["AP"] for label in (7, 8, 9)] == [1, -1, -1]
    assert metric([], classes=(7,)).evaluate(arrays([])).stats["mAP"] == -1
    assert scorer.evaluate(arrays([])).stats == {"mAP": 0, "mAP_11": 0, "mAP_fixed": 0}


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_not_finite() -> None:
    """As the COCO metric takes them: such a box is wrong, such a score is 0."""
    nan, inf = float("nan"), float("inf")
    boxes = [(1, 1, 10, 10), (nan, 1, 10, 10), (-inf, -inf, inf, inf), (1, 1, 1, nan)]
    scores = [0.1, 0.9, 0.8, 0.05]
    detections = [(1, 7, box, score) for box, score in zip(boxes, scores, strict=True)]
    assert metric(TRUTHS[:1]).evaluate(arrays(detections)).stats["mAP"] == pytest.approx(1 / 3)
    detections = [(1, 7, boxes[0], nan), (1, 7, (50, 50, 60, 60), 0.1)]
    assert metric(TRUTHS[:1]).evaluate(arrays(detections)).stats["mAP"] == 0.5


def test_boxes_that_share_nothing_match_at_no_iou() -> None:
    apart = [(1, 7, (50, 50, 60, 60), 0.5)]
    assert metric(TRUTHS[:1], iou=0.0).evaluate(arrays(apart)).stats["mAP"] == 0


def random_case(rng: np.random.Generator) -> tuple[list, list]:
    """Few images and crowded ones, boxes that overlap, many equal scores."""

    def box() -> reference.Box:
        (x, y), (w, h) = rng.integers(1, 60, 2), rng.integers(1, 30, 2)
        return (int(x), int(y), int(x + w), int(y + h))

    truths = [
        (int(rng.integers(5)), int(rng.integers(4)), box(), bool(rng.random() < 0.2))
        for _ in range(60)
    ]
    detections = []
    for _ in range(400):
        image, label, corners, _ = truths[rng.integers(len(truths))]
        moved = tuple(int(value) for value in np.array(corners) + rng.integers(-3, 4, 4))
        if moved[2] < moved[0] or moved[3] < moved[1]:
            moved = box()
        label = label if rng.random() < 0.8 else int(rng.integers(5))
        detections.append((image, label, moved, round(float(rng.random()), 2)))
    return truths, detections


def expected(truths: list, detections: list, iou: float) -> dict[str, float]:
    aps, aps_11, aps_fixed = [], [], []
    for label in range(6):
        recall, precision, to_find = reference.curve(truths, detections, label, iou)
        if to_find:
            aps.append(reference.ap_all_points(recall, precision))
            aps_11.append(reference.ap_11_points(recall, precision))
            confident = [detection for detection in detections if detection[3] >= 0.4]
            recall, precision, _ = reference.curve(truths, confident, label, iou)
            aps_fixed.append(reference.ap_all_points(recall, precision))
    return {"mAP": np.mean(aps), "mAP_11": np.mean(aps_11), "mAP_fixed": np.mean(aps_fixed)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_equals_the_loops(seed: int, iou: float) -> None:
    truths, detections = random_case(np.random.default_rng(seed))
    result: MetricResult = metric(truths, tuple(range(6)), iou=iou).evaluate(arrays(detections))
    assert 0.02 < result.stats["mAP"] < 0.98
    assert result.stats == pytest.approx(expected(truths, detections, iou), abs=1e-12)


def test_the_config_may_name_each_figure_and_no_other() -> None:
    assert MONITORS_OF_METRIC == {"coco": coco.MONITORS, "voc": voc.MONITORS}


def test_the_size_of_voc_takes_no_time() -> None:
    """5,000 images, 20 classes, 100,000 detections: a tenth of a second where this was written."""
    rng = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        corners = rng.uniform(0, 400, (count, 2))
        return np.concatenate([corners, corners + rng.uniform(10, 100, (count, 2))], axis=1)

    scorer = VocMetric(
        image_ids=rng.integers(5000, size=15_000),
        category_ids=rng.integers(20, size=15_000),
        boxes_xyxy_px=boxes(15_000),
        difficult=rng.random(15_000) < 0.1,
        all_category_ids=tuple(range(20)),
    )
    images, categories = rng.integers(5000, size=100_000), rng.integers(20, size=100_000)
    found = DetectedBoxes(images, categories, boxes(100_000), rng.random(100_000))
    start = time.perf_counter()
    scorer.evaluate(found)
    assert time.perf_counter() - start < 3
