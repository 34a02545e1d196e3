import numpy as np
import pytest

from yolo.evaluate.metrics.metric import PrecisionRecall, average_precision, average_precision_11


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


def test_the_best_f1_by_hand() -> None:
    """F1 is 2 * right / (found + truths): 2/5, 2/6, 4/7 of three boxes of scores 0.9, 0.5, 0.1."""
    assert curve("+-+", truths=4).best_f1() == pytest.approx((0.1, 2 / 3, 2 / 4, 4 / 7))
    assert curve("+--", truths=4).best_f1() == pytest.approx((0.9, 1, 1 / 4, 2 / 5))
    hits, scores = np.array([True, False, True]), np.array([0.9, 0.5, 0.5])
    equal = PrecisionRecall.of_hits(hits[[0, 2, 1]], scores, truths=2)  # no threshold keeps two
    assert equal.best_f1() == pytest.approx((0.5, 2 / 3, 1, 4 / 5))
    for nothing in (curve("--", truths=3), curve("", truths=3), curve("", truths=0)):
        assert nothing.best_f1() == (0, 0, 0, 0)


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
