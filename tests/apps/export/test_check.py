"""Which detections pass as the suppression of given boxes and scores, and which do not."""

from dataclasses import replace

import pytest
import torch

from yolo.apps.export.check import BOUNDS, Disagreement, check_suppression
from yolo.detection.postprocess import Postprocess
from yolo.records import Detections

POSTPROCESS = Postprocess(conf=0.3, iou=0.5, max_detections=12, max_candidates=60)


def scene(seed, boxes=120, classes=3):
    """Boxes that overlap a lot, with scores of some width."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(boxes, 2, generator=generator) * 60
    side = 15 + torch.rand(boxes, 2, generator=generator) * 25
    scores = torch.rand(boxes, classes, generator=generator)
    return torch.cat((corner, corner + side), dim=1), scores


def check(boxes, scores, found, postprocess=POSTPROCESS):
    check_suppression(0, boxes, scores, found, postprocess, BOUNDS["fp32"])


def picked(detections, index):
    return Detections(
        boxes_xyxy_px=detections.boxes_xyxy_px[index],
        scores=detections.scores[index],
        labels=detections.labels[index],
    )


@pytest.mark.parametrize("labels", ["best_class", "all_classes"])
@pytest.mark.parametrize("limits", [{}, {"max_detections": 3}, {"max_candidates": 20}])
def test_the_suppression_itself_passes_and_each_change_of_it_is_found(labels, limits):
    postprocess = replace(POSTPROCESS, labels=labels, **limits)
    for seed in range(5):
        boxes, scores = scene(seed)
        (found,) = postprocess(boxes[None], scores[None])
        check(boxes, scores, found, postprocess)
        for lost in range(len(found)):
            kept = [i for i in range(len(found)) if i != lost]
            with pytest.raises(Disagreement, match="image 0 lacks the detection of class"):
                check(boxes, scores, picked(found, kept), postprocess)
        with pytest.raises(Disagreement, match="not sorted"):
            check(boxes, scores, picked(found, [1, 0, 2]), postprocess)
        for other in ({"iou": 0.55}, {"conf": 0.25}, {"max_detections": 13}):
            (more,) = replace(postprocess, max_candidates=120, **other)(boxes[None], scores[None])
            if len(more) > len(found):
                with pytest.raises(Disagreement, match="that PyTorch has not"):
                    check(boxes, scores, more, postprocess)


@pytest.mark.parametrize("labels", ["best_class", "all_classes"])
def test_rounding_passes_whatever_it_decides(labels):
    """Numbers as coarse as float16's: equal scores and overlaps, and what follows from each."""
    postprocess = replace(POSTPROCESS, labels=labels, iou=0.5)
    turned = 0
    for seed in range(20):
        boxes, scores = scene(seed)
        boxes, scores = boxes.round(), (scores * 20).round() / 20
        (found,) = postprocess(boxes[None], scores[None])
        order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
        (other,) = postprocess(boxes[None, order], scores[None, order])
        check(boxes, scores, found, postprocess)
        check(boxes, scores, other, postprocess)
        turned += found.boxes_xyxy_px.tolist() != other.boxes_xyxy_px.tolist()
    assert turned > 10


def test_by_hand():
    """Two boxes of IoU 0.5, the threshold; one score at the threshold; one without doubt."""
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 5], [100, 0, 110, 10], [200, 0, 210, 10.0]])
    scores = torch.tensor([[0.9], [0.8], [0.3], [0.7]])
    every = Detections(
        boxes_xyxy_px=boxes[[0, 1, 3, 2]],
        scores=torch.tensor([0.9, 0.8, 0.7, 0.3]),
        labels=torch.zeros(4, dtype=torch.int64),
    )
    for right in ([0, 1, 2, 3], [0, 2, 3], [0, 1, 2], [0, 2]):
        check(boxes, scores, picked(every, right))
    for wrong in ([1, 2], [0, 1, 3], []):
        with pytest.raises(Disagreement, match="lacks"):
            check(boxes, scores, picked(every, wrong))
    moved = replace(every, boxes_xyxy_px=every.boxes_xyxy_px + 1)
    with pytest.raises(Disagreement, match="PyTorch has not"):
        check(boxes, scores, moved)
