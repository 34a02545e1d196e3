"""What a last digit may turn, and what not."""

from dataclasses import replace

import pytest
import torch

from yolo.apps.export.sure import Candidates, sure_and_possible
from yolo.detection.postprocess import Postprocess

POSTPROCESS = Postprocess(conf=0.3, iou=0.5, max_detections=12, max_candidates=60)


def scene(seed, boxes=120, classes=3):
    """Boxes that overlap a lot, with scores of some width."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(boxes, 2, generator=generator) * 60
    side = 15 + torch.rand(boxes, 2, generator=generator) * 25
    scores = torch.rand(boxes, classes, generator=generator)
    return torch.cat((corner, corner + side), dim=1), scores


def as_rows(boxes, scores, labels):
    return {
        (*box, score, label)
        for box, score, label in zip(
            map(tuple, boxes.tolist()), scores.tolist(), labels.tolist(), strict=True
        )
    }


@pytest.mark.parametrize("labels", ["best_class", "all_classes"])
@pytest.mark.parametrize("limits", [{}, {"max_detections": 3}, {"max_candidates": 20}])
def test_without_a_difference_it_is_the_suppression(labels, limits):
    postprocess = replace(POSTPROCESS, labels=labels, **limits)
    for seed in range(5):
        boxes, scores = scene(seed)
        (found,) = postprocess(boxes[None], scores[None])
        fate = sure_and_possible(
            Candidates(boxes=boxes, scores=scores, other_boxes=boxes, other_scores=scores),
            postprocess,
        )
        expected = as_rows(found.boxes_xyxy_px, found.scores, found.labels)
        for which in (fate.sure, fate.possible):
            assert as_rows(fate.boxes[which], fate.scores[which], fate.labels[which]) == expected


@pytest.mark.parametrize("labels", ["best_class", "all_classes"])
def test_with_differences_every_outcome_lies_between_sure_and_possible(labels):
    postprocess = replace(POSTPROCESS, labels=labels)
    turned = decided = 0
    for seed in range(20):
        boxes, scores = scene(seed)
        generator = torch.Generator().manual_seed(1000 + seed)
        other_boxes = boxes + (torch.rand(boxes.shape, generator=generator) - 0.5) * 0.4
        other_scores = scores + (torch.rand(scores.shape, generator=generator) - 0.5) * 0.004
        fate = sure_and_possible(
            Candidates(
                boxes=boxes, scores=scores, other_boxes=other_boxes, other_scores=other_scores
            ),
            postprocess,
        )
        assert not (fate.sure & ~fate.possible).any()
        (found,) = postprocess(other_boxes[None], other_scores[None])
        same = (fate.boxes[:, None] - found.boxes_xyxy_px).abs().amax(2) <= 0.21
        same &= (fate.scores[:, None] - found.scores).abs() <= 0.003
        same &= fate.labels[:, None] == found.labels
        assert same[fate.sure].any(dim=1).all()
        assert same[fate.possible].any(dim=0).all()
        turned += int((fate.possible & ~fate.sure).sum())
        decided += int(fate.sure.sum())
    assert turned > 10 and decided > 2 * turned, "neither nothing nor everything hangs on a digit"


def test_by_hand():
    """Two boxes of IoU 0.5 = the threshold; one score at the threshold; one sure."""
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 5], [100, 0, 110, 10], [200, 0, 210, 10.0]])
    scores = torch.tensor([[0.9], [0.8], [0.3], [0.7]])
    other = boxes + torch.tensor([0.01, 0, 0, 0])
    fate = sure_and_possible(
        Candidates(boxes=boxes, scores=scores, other_boxes=other, other_scores=scores + 1e-3),
        POSTPROCESS,
    )
    torch.testing.assert_close(fate.scores, torch.tensor([0.9, 0.8, 0.7, 0.3]))
    assert fate.sure.tolist() == [True, False, True, False]
    assert fate.possible.tolist() == [True, True, True, True]
