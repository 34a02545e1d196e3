import pytest
import torch
from torch.nn.functional import one_hot

from yolo.evaluate.metrics.top_k import top_k

SCORES = torch.tensor([0.1, 0.9, 0.4, 0.8, 0.3, 0.7, 0.2])  # from best: 1, 3, 5, 2, 4, 6, 0


def test_by_hand():
    labels = torch.tensor([1, 3, 4, 6, 0])  # places 1, 2, 5, 6, 7
    counts = top_k(SCORES.expand(5, 7), labels)
    assert counts["top1"].tolist() == [1, 5]
    assert counts["top5"].tolist() == [3, 5]


def test_equal_scores_are_no_answer():
    labels = torch.tensor([0, 3])
    assert top_k(torch.zeros(2, 7), labels)["top1"].tolist() == [0, 2]
    assert top_k(torch.zeros(2, 7), labels)["top5"].tolist() == [0, 2]
    two = one_hot(torch.tensor([0, 3]), 7) + one_hot(torch.tensor([1, 1]), 7)
    counts = top_k(two.float(), labels)
    assert (counts["top1"].tolist(), counts["top5"].tolist()) == ([0, 2], [2, 2])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_network_that_diverged_hits_nothing(broken):
    labels = torch.tensor([2])
    assert top_k(torch.full((1, 9), broken), labels)["top5"].tolist() == [0, 1]
    scores = torch.zeros(1, 9)
    scores[0, 2] = broken
    assert top_k(scores, labels)["top1"].tolist() == [int(broken == float("inf")), 1]


def test_few_classes():
    counts = top_k(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0]))
    assert (counts["top1"].tolist(), counts["top5"].tolist()) == ([0, 1], [1, 1])
