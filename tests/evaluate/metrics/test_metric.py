import numpy as np
import pytest

from yolo.evaluate.metrics.metric import (
    RECALL_LEVELS,
    PrecisionRecall,
    average_precision,
    average_precision_11,
    mean_precision,
    pooled,
)


def curve(hits: str, truths: int) -> PrecisionRecall:
    """Hits as "+" and misses as "-", from the most confident on."""
    scores = np.linspace(0.9, 0.1, len(hits))
    return PrecisionRecall.of_hits(np.array([c == "+" for c in hits], bool), scores, truths)


def test_of_hits_by_hand() -> None:
    found = curve("+-+", truths=4)
    assert found.recall.tolist() == [1 / 4, 1 / 4, 2 / 4]
    assert found.precision.tolist() == [1, 1 / 2, 2 / 3]
    assert found.envelope().tolist() == [1, 2 / 3, 2 / 3]
    assert found.above(0.5).recall.tolist() == [1 / 4, 1 / 4]
    assert found.above(0.95).recall.tolist() == []


def test_a_recall_of_just_three_tenths_counts_at_the_level() -> None:
    """3 of 10 found, each rightly: four of eleven levels (0, 0.1, 0.2, 0.3) have precision 1."""
    assert average_precision_11(curve("+++", truths=10)) == pytest.approx(4 / 11)
    for found in range(11):
        assert average_precision_11(curve("+" * found, 10)) == pytest.approx(
            (found + 1) / 11 if found else 0
        )


@pytest.mark.parametrize("average", [average_precision, average_precision_11])
def test_nothing_found_is_zero_and_nothing_to_find_minus_one(average) -> None:
    assert average(curve("", truths=3)) == 0
    assert average(curve("--", truths=3)) == 0
    assert average(curve("--", truths=0)) == -1


def test_pooled_sorts_by_score_and_skips_classes_without_truth() -> None:
    one = PrecisionRecall.of_hits(np.array([True, False]), np.array([0.9, 0.3]), truths=2)
    other = PrecisionRecall.of_hits(np.array([False, True]), np.array([0.6, 0.5]), truths=1)
    all_of_them = pooled([one, other, curve("---", truths=0)])
    assert all_of_them.scores.tolist() == [0.9, 0.6, 0.5, 0.3]
    assert all_of_them.recall == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert all_of_them.precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert pooled([]).truths == 0 and len(pooled([]).scores) == 0


def test_mean_precision_over_classes() -> None:
    half, whole = curve("+", truths=2), curve("++", truths=2)
    mean = mean_precision([half, whole, curve("-", truths=0)])
    assert mean[RECALL_LEVELS <= 0.5].tolist() == [1.0] * 51
    assert mean[RECALL_LEVELS > 0.5].tolist() == [0.5] * 50
    assert mean_precision([]).tolist() == [0.0] * 101
