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
