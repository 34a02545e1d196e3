"""Counted by hand, and through the losses of every generation: one, two and three maps."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tests.detection.losses.cases import make_targets
from yolo.detection.coders import AnchorCoder, GridCoder
from yolo.detection.losses.anchor import AnchorSettings
from yolo.detection.losses.yolov1 import YOLOv1Loss
from yolo.detection.losses.yolov2 import YOLOv2Loss
from yolo.detection.losses.yolov3 import YOLOv3Loss
from yolo.evaluate.metrics.metric import grid_accuracy, top_k
from yolo.records import GridMatches, Targets

LARGE = 9.0
"""A raw number whose sigmoid is nearly 1."""


def expected(*pairs: list[int]) -> dict[str, list[int]]:
    return dict(zip(("class", "object", "no_object", "placed"), pairs, strict=True))


def test_grid_accuracy_by_hand() -> None:
    matches = GridMatches(
        objectness=torch.tensor([0.9, 0.2, 0.5, 0.6, 0.1]),  # 0.5 claims no object
        owned=torch.tensor([True, True, False, False, False]),
        class_logits=torch.tensor([[0.0, 1, 2], [0, 5, 1], [9, 0, 0]]),
        labels=torch.tensor([2, 0, 0]),
        counted=torch.tensor([True, True, False]),  # the first truth has two places
        placed=torch.tensor([True, False]),
        dropped=torch.tensor([False, True]),
    )
    counts = {name: pair.tolist() for name, pair in grid_accuracy(matches).items()}
    assert counts == expected([1, 2], [1, 2], [2, 3], [1, 2])


def test_no_truth() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    matches = GridMatches(
        objectness=torch.zeros(4),
        owned=torch.zeros(4) > 0,
        class_logits=torch.zeros(0, 3),
        labels=nothing,
        counted=nothing > 0,
        placed=nothing > 0,
        dropped=nothing > 0,
    )
    counts = {name: pair.tolist() for name, pair in grid_accuracy(matches).items()}
    assert counts == expected([0, 0], [0, 0], [4, 4], [0, 0])


def two_truths() -> Targets:
    """A large box of class 1 in the first image, an ignored and a small one of class 0 in the
    second; both centres at (40, 24) of 64 px."""
    large, small = (0, 0.625, 0.375, 0.5, 0.5, 1), (1, 0.625, 0.375, 0.125, 0.125, 0)
    return make_targets([large, (1, 0.5, 0.5, 1, 1, 1, True), small])


def counts_of(loss, raw: list[Tensor]) -> dict[str, list[float]]:
    for values in raw:
        values.requires_grad_()
    counts = grid_accuracy(loss.matches(raw, two_truths()))
    assert not any(pair.requires_grad for pair in counts.values())
    return {name: pair.tolist() for name, pair in counts.items()}


def maps(strides: tuple[int, ...], anchors: int) -> list[Tensor]:
    """Two images of 64 px, two classes; certain that nothing is anywhere, and of class 0."""
    raw = [torch.zeros(2, anchors, 64 // s, 64 // s, 5 + 2) for s in strides]
    for values in raw:
        values[..., 4], values[..., 5] = -LARGE, LARGE
    return raw


LEVELS = [((8, 16, 32), 3 * (64 + 16 + 4)), ((16, 32), 3 * (16 + 4)), ((32,), 3 * 4)]


@pytest.mark.parametrize(("strides", "boxes"), LEVELS)
def test_yolov3_of_any_number_of_maps(strides: tuple[int, ...], boxes: int) -> None:
    """The first level has the anchor for the small box, the last one that for the large box."""
    sizes = torch.linspace(8, 32, 3 * len(strides))
    anchors = sizes[:, None].expand(-1, 2).unflatten(0, (len(strides), 3)).tolist()
    coder = AnchorCoder(anchors_px=anchors, stride_px=strides)
    loss = YOLOv3Loss(coder=coder, settings=AnchorSettings(ignore_threshold=0.9))
    raw = maps(strides, anchors=3)
    assert counts_of(loss, raw) == expected([1, 2], [0, 2], [2 * boxes - 2, 2 * boxes - 2], [2, 2])
    row, column = 24 // strides[-1], 40 // strides[-1]
    right = [values.detach() for values in raw]
    right[-1][0, 2, row, column, 4:] = torch.tensor([LARGE, -LARGE, LARGE])  # objectness, class 1
    right[0][0, 0, 0, 0, 4] = LARGE  # something where nothing is
    assert counts_of(loss, right) == expected(
        [2, 2], [1, 2], [2 * boxes - 3, 2 * boxes - 2], [2, 2]
    )
    assert all(term.isfinite() for term in loss(right, two_truths(), 2).values())


def test_yolov2() -> None:
    coder = AnchorCoder(anchors_px=[[(8, 8), (32, 32)]], stride_px=(32,))
    raw = maps((32,), anchors=2)
    raw[0][1, 0, 0, 1, 4] = LARGE  # the small box
    assert counts_of(YOLOv2Loss(coder=coder), raw) == expected([1, 2], [1, 2], [14, 14], [2, 2])


def test_yolov1_takes_the_raw_confidence_of_the_responsible_box() -> None:
    raw = torch.zeros(2, 1, 1, 2 * 5 + 2)  # one cell of 64 px with two boxes
    coder = GridCoder(cells=1, boxes=2, stride_px=64)
    boxes, classes = coder.split(raw)  # views
    boxes[0, 0, 0, 1] = torch.tensor([0.625, 0.375, 0.5**0.5, 0.5**0.5, 0.8])  # the truth
    boxes[1, 0, 0, 0] = torch.tensor([0.625, 0.375, 0.125**0.5, 0.125**0.5, 0.3])
    boxes[1, 0, 0, 1, 4] = 0.7
    classes[0, 0, 0] = torch.tensor([0.2, 0.4])
    classes[1, 0, 0] = torch.tensor([0.2, 0.4])
    assert counts_of(YOLOv1Loss(coder=coder), [raw]) == expected([1, 2], [1, 2], [1, 2], [2, 2])


@pytest.mark.parametrize("generation", ["yolov1", "yolov2", "yolov3"])
def test_a_truth_whose_place_is_taken_is_dropped(generation: str) -> None:
    """Three equal boxes in one place, the last one ignored."""
    anchors = AnchorCoder(anchors_px=[[(8, 8), (32, 32)]], stride_px=(32,))
    raw = torch.zeros(1, 2, 2, 2, 5 + 2)
    loss = {
        "yolov1": lambda: YOLOv1Loss(coder=GridCoder(cells=1, boxes=2, stride_px=64)),
        "yolov2": lambda: YOLOv2Loss(coder=anchors),
        "yolov3": lambda: YOLOv3Loss(coder=anchors),
    }[generation]()
    box = (0, 0.6, 0.4, 0.5, 0.5)
    targets = make_targets([(*box, 1), (*box, 0), (*box, 1, True)])
    maps = [torch.zeros(1, 1, 1, 2 * 5 + 2) if generation == "yolov1" else raw]
    matches = loss.matches(maps, targets)
    assert matches.dropped.tolist() == [generation != "yolov1", generation == "yolov1", False]
    assert grid_accuracy(matches)["placed"].tolist() == [1, 2]


SCORES = torch.tensor([0.1, 0.9, 0.4, 0.8, 0.3, 0.7, 0.2])  # from best: 1, 3, 5, 2, 4, 6, 0


def count_best(logits: Tensor, labels: list[int]) -> tuple[list[int], list[int]]:
    """Top-1 and top-5: hits and images."""
    rows = [(image, 0.5, 0.5, 0.5, 0.5, label) for image, label in enumerate(labels)]
    counts = top_k(logits, make_targets(rows))
    return counts["top1"].tolist(), counts["top5"].tolist()


def test_top_k_by_hand():
    labels = [1, 3, 4, 6, 0]  # places 1, 2, 5, 6, 7
    assert count_best(SCORES.expand(5, 7), labels) == ([1, 5], [3, 5])


def test_equal_scores_are_no_answer():
    assert count_best(torch.zeros(2, 7), [0, 3]) == ([0, 2], [0, 2])
    two = one_hot(torch.tensor([0, 3]), 7) + one_hot(torch.tensor([1, 1]), 7)
    assert count_best(two.float(), [0, 3]) == ([0, 2], [2, 2])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_network_that_diverged_hits_nothing(broken):
    assert count_best(torch.full((1, 9), broken), [2])[1] == [0, 1]
    scores = torch.zeros(1, 9)
    scores[0, 2] = broken
    assert count_best(scores, [2])[0] == [int(broken == float("inf")), 1]


def test_few_classes():
    assert count_best(torch.tensor([[1.0, 2.0, 3.0]]), [0]) == ([0, 1], [1, 1])
