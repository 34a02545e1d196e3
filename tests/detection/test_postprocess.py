import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from yolo.detection import postprocess
from yolo.detection.postprocess import Postprocess
from yolo.records import Detections

MODES = ("best_class", "all_classes")
each_kind = pytest.mark.parametrize("kind", ["greedy", "soft"])


def random_output(images: int, boxes: int, classes: int) -> tuple[Tensor, Tensor]:
    """Clustered boxes, some of them left of and above the image, and scores without ties."""
    centre = torch.randint(-1, 6, (images, boxes, 2)) * 40 + torch.randn(images, boxes, 2) * 5
    half = 10 + torch.rand(images, boxes, 2) * 20
    count = images * boxes * classes
    scores = (torch.randperm(count) / count).view(images, boxes, classes)
    return torch.cat((centre - half, centre + half), dim=2), scores


def candidates(scores: Tensor, settings: Postprocess) -> list[tuple[float, int, int]]:
    """What enters the suppression of one image: (score, label, box's index), best first."""
    rows = [(float(scores[n, k]), k, n) for n in range(len(scores)) for k in range(scores.shape[1])]
    if settings.labels == "best_class":
        rows = [max(row for row in rows if row[2] == n) for n in range(len(scores))]
    rows = sorted(rows, reverse=True)[: settings.max_candidates]
    return [row for row in rows if row[0] >= settings.conf]


def naive(boxes: Tensor, scores: Tensor, settings: Postprocess) -> list[tuple[float, int, list]]:
    """One image, class by class with torchvision's nms: (score, label, box), best first."""
    rows, found = candidates(scores, settings), []
    for label in range(scores.shape[1]):
        mine = [row for row in rows if row[1] == label]
        if mine:
            places = torch.tensor([n for _, _, n in mine])
            kept = nms(
                boxes[places].double(), torch.tensor([s for s, _, _ in mine]).double(), settings.iou
            )
            found += [(mine[i][0], label, boxes[mine[i][2]].tolist()) for i in kept.tolist()]
    return sorted(found, reverse=True)[: settings.max_detections]


def naive_soft(boxes: Tensor, scores: Tensor, settings: Postprocess) -> list[tuple]:
    """One image, class by class as the paper's figure 2 has it: (score, label, box), best first."""
    rows, found = candidates(scores, settings), []
    overlaps = box_iou(boxes.double(), boxes.double()).tolist()
    for label in range(scores.shape[1]):
        left = {n: score for score, k, n in rows if k == label}
        while left:
            best = max(left, key=left.__getitem__)
            found.append((left.pop(best), label, boxes[best].tolist()))
            left = {n: s * math.exp(-(overlaps[best][n] ** 2) / 0.2) for n, s in left.items()}
    found = [row for row in found if row[0] >= settings.conf]
    return sorted(found, reverse=True)[: settings.max_detections]


def as_rows(found: Detections) -> list[tuple[float, int, list]]:
    columns = found.scores.tolist(), found.labels.tolist(), found.boxes_xyxy_px.tolist()
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("labels", MODES)
@pytest.mark.parametrize(
    ("limits", "classes"),
    [
        ({"conf": 0.3, "iou": 0.5}, 3),
        ({"conf": 0.0, "iou": 0.45}, 3),
        ({"conf": 0.05, "iou": 0.6, "max_detections": 7}, 2),
        ({"conf": 0.01, "iou": 0.5, "max_candidates": 40}, 3),
        ({"conf": 0.2, "iou": 0.4}, 1),
        ({"conf": 1.0, "iou": 0.5}, 3),
    ],
)
def test_equals_torchvisions_nms_class_by_class(labels, limits, classes) -> None:
    settings = Postprocess(labels=labels, **limits)
    for _ in range(4):
        boxes, scores = random_output(3, 120, classes)
        results = settings(boxes, scores)
        assert len(results) == 3
        for image, found in enumerate(results):
            assert as_rows(found) == naive(boxes[image], scores[image], settings)
            assert found.labels.dtype == torch.int64


@pytest.mark.parametrize("labels", MODES)
@pytest.mark.parametrize(
    "limits",
    [{"conf": 0.05}, {"conf": 0.0, "max_detections": 9}, {"conf": 0.2, "max_candidates": 40}],
)
def test_soft_equals_the_papers_algorithm(labels, limits) -> None:
    settings = Postprocess(iou=0.5, labels=labels, suppression="soft", **limits)
    for _ in range(3):
        boxes, scores = random_output(2, 100, 3)
        for image, found in enumerate(settings(boxes, scores)):
            expected = naive_soft(boxes[image], scores[image], settings)
            assert len(expected) > 5
            values, labels_, boxes_ = zip(*expected, strict=True)
            torch.testing.assert_close(found.scores, torch.tensor(values))
            assert (found.labels.tolist(), found.boxes_xyxy_px.tolist()) == ([*labels_], [*boxes_])


def test_no_images() -> None:
    boxes, scores = random_output(2, 30, 3)
    assert Postprocess(conf=0.1, iou=0.5, suppression="soft")(boxes[:0], scores[:0]) == []


def test_soft_by_hand() -> None:
    """The second overlaps the first by a third; the third is of another class, the last a point."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10], [3, 3, 3, 3]]])
    scores = torch.tensor([[[0.9, 0], [0.8, 0], [0, 0.7], [0.6, 0]]])
    (found,) = Postprocess(conf=0.1, iou=0.01, suppression="soft")(boxes, scores)
    lowered = 0.8 * math.exp(-(1 / 9) / 0.2)  # 0.459
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6, lowered])
    assert found.labels.tolist() == [0, 1, 0, 0]
    (few,) = Postprocess(conf=0.46, iou=0.01, suppression="soft")(boxes, scores)
    assert few.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])


@each_kind
@pytest.mark.parametrize("labels", MODES)
def test_a_batch_finds_what_each_image_alone_does(labels, kind) -> None:
    """Also among equal scores, of which the cut leaves out some."""
    boxes, scores = random_output(4, 200, 5)
    scores = (scores * 20).round() / 20
    scores[1] *= 0.3  # fewer pass than in the others
    limits = {"conf": 0.1, "iou": 0.5, "max_candidates": 60}
    settings = Postprocess(labels=labels, suppression=kind, **limits)
    together = settings(boxes, scores)
    alone = [settings(boxes[i : i + 1], scores[i : i + 1])[0] for i in range(4)]
    assert [as_rows(one) for one in together] == [as_rows(one) for one in alone]


def test_a_box_may_have_several_classes_or_its_best() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.6, 0.1], [0.2, 0.3, 0.05]]])
    (every,) = Postprocess(conf=0.15, iou=0.5, labels="all_classes")(boxes, scores)
    assert every.scores.tolist() == pytest.approx([0.9, 0.6, 0.3, 0.2])
    assert every.labels.tolist() == [0, 1, 1, 0]
    (best,) = Postprocess(conf=0.15, iou=0.5)(boxes, scores)
    assert best.scores.tolist() == pytest.approx([0.9, 0.3]) and best.labels.tolist() == [0, 1]


def test_one_class_equals_opencvs_nms() -> None:
    boxes, scores = random_output(1, 300, 1)
    found = Postprocess(conf=0.1, iou=0.45)(boxes, scores)[0]
    corners = boxes[0].double().numpy()
    sizes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    kept = cv2.dnn.NMSBoxes(sizes.tolist(), scores[0, :, 0].tolist(), 0.1, 0.45)
    assert 5 < len(kept) < 150
    assert found.scores.tolist() == scores[0, kept, 0].tolist()


@pytest.mark.parametrize("labels", MODES)
def test_class_by_class_finds_what_all_at_once_does(labels, monkeypatch) -> None:
    """Where many boxes pass; also among equal scores."""
    for classes in (1, 7):
        boxes, scores = random_output(2, 300, classes)
        for values in (scores, (scores * 20).round() / 20):
            settings = Postprocess(conf=0.1, iou=0.5, labels=labels, max_detections=200)
            found = []
            for most in (0, 10_000):
                monkeypatch.setattr(postprocess, "MOST_AT_ONCE", most)
                found.append([as_rows(one) for one in settings(boxes, values)])
            assert found[0] == found[1] and len(found[0][0]) > 20


def test_classes_never_suppress_each_other_however_large_the_boxes() -> None:
    huge = torch.tensor([[-8e6, -8e6, 8e6, 8e6]]).repeat(80, 1)  # as far as the coder lets go
    small = torch.tensor([[10.0, 10, 20, 20], [10, 10, 20, 19.9], [10, 10, 14, 20]])
    boxes = torch.cat((huge, small))
    scores = torch.zeros(1, 83, 80)
    scores[0, torch.arange(80), torch.arange(80)] = torch.linspace(0.5, 0.9, 80)
    scores[0, 80:, 79] = torch.tensor([0.4, 0.3, 0.2])
    found = Postprocess(conf=0.1, iou=0.5)(boxes[None], scores)[0]
    assert len(found) == 82  # of the three small ones of class 79, the second goes
    assert found.scores[-2:].tolist() == pytest.approx([0.4, 0.2])


@each_kind
@pytest.mark.parametrize("labels", MODES)
def test_filtering_afterwards_equals_a_higher_threshold(labels, kind) -> None:
    boxes, scores = random_output(2, 200, 4)
    boxes[0, 5] = torch.tensor([900.0, 900, 950, 950])  # nobody's neighbour
    scores[0, 5] = torch.tensor([0.1, 0.2, 0.9, 0.3])  # exactly the threshold: 0.9 passes
    for limit in (50, 300):
        settings = {"iou": 0.5, "max_detections": limit, "labels": labels, "suppression": kind}
        low = Postprocess(conf=0.0, **settings)(boxes, scores)
        for conf in (0.3, 0.9, 0.97):
            high = Postprocess(conf=conf, **settings)(boxes, scores)
            assert [as_rows(f.above(conf)) for f in low] == [as_rows(f) for f in high]
    assert torch.tensor(0.9) in low[0].above(0.9).scores


@each_kind
@pytest.mark.parametrize("labels", MODES)
def test_nothing_to_find(labels, kind) -> None:
    settings = Postprocess(conf=0.5, iou=0.5, labels=labels, suppression=kind)
    boxes, scores = random_output(2, 30, 3)
    for found in settings(boxes, scores * 0.4) + settings(boxes[:, :0], scores[:, :0]):
        assert len(found) == 0 and found.boxes_xyxy_px.shape == (0, 4)
        assert found.labels.dtype == torch.int64 and found.scores.dtype == torch.float32


@pytest.mark.parametrize("labels", MODES)
def test_a_score_that_is_no_number_is_no_detection(labels) -> None:
    boxes, scores = random_output(1, 30, 2)
    expected = Postprocess(conf=0.2, iou=0.5, labels=labels)(boxes[:, 5:], scores[:, 5:])[0]
    scores[0, :5] = torch.nan
    found = Postprocess(conf=0.2, iou=0.5, labels=labels)(boxes, scores)[0]
    assert as_rows(found) == as_rows(expected) and len(found) > 3
