"""Which detections are sure, and which are possible, where boxes and scores are a little unsure.

Suppression is full of decisions that a last digit may turn: a score at the threshold, two boxes
that overlap just so, two scores that are nearly the same. Each candidate's fate is followed with
both outcomes where the difference of two computations could have turned it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolo.detection.postprocess import Postprocess

SCORE_ROUNDING = 1e-7
"""Scores are compared as float32 here and there."""

IOU_ROUNDING = 1e-5
"""An overlap in float32 is that exact for boxes of some pixels."""


MOST_CANDIDATES = 10_000


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What two computations say of one image, before the suppression.

    Attributes:
        boxes, scores: of the one, (N, 4) and (N, K).
        other_boxes, other_scores: of the other.
    """

    boxes: Tensor
    scores: Tensor
    other_boxes: Tensor
    other_scores: Tensor


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of the candidates that may pass the threshold, the best first.

    Attributes:
        boxes: (C, 4), of the one computation.
        scores, labels: (C,).
        sure, possible: bool (C,); what is sure is possible too.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    sure: Tensor
    possible: Tensor


def sure_and_possible(candidates: Candidates, postprocess: Postprocess) -> Fate | None:
    """Follow ``Postprocess`` on one image with numbers that are only known within bounds.

    The bounds are the differences between the two computations: of the scores the largest, of each
    box its own.

    Returns:
        None where more than ``MOST_CANDIDATES`` may take part, for the scores are all alike, as
        those of an untrained network in float16 can be: anything is possible then.
    """
    slack = 2 * float((candidates.scores - candidates.other_scores).abs().max()) + SCORE_ROUNDING
    anchor, label, score, present = _enter(candidates.scores, slack, postprocess)
    if len(anchor) > MOST_CANDIDATES:
        return None
    boxes = candidates.boxes[anchor]
    off = (candidates.boxes - candidates.other_boxes).abs().amax(dim=1)[anchor].double()
    sure, possible = _suppress(boxes.double(), off, score, label, present, slack, postprocess.iou)
    sure, possible = _cut(score, sure, possible, slack, postprocess.max_detections)
    return Fate(boxes=boxes, scores=score, labels=label, sure=sure, possible=possible)


def _enter(
    scores: Tensor, slack: float, postprocess: Postprocess
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Who may take part: anchor, label, score, and whether that is sure; (C,), the best first."""
    if postprocess.labels == "all_classes":
        contest, ambiguous = scores, torch.zeros(len(scores), dtype=torch.bool)
        ranking = scores.flatten()
    else:
        ranking = scores.amax(dim=1)
        close = scores >= ranking[:, None] - slack
        contest = scores.masked_fill(~close, -torch.inf)
        ambiguous = close.sum(dim=1) > 1  # (N,): another class may win
    best = ranking.sort(descending=True).values
    cut = postprocess.max_candidates
    # the first that stays out sets the limit below which nobody is sure, and so on
    sure_limit = best[cut] + slack if len(best) > cut else -torch.inf
    open_limit = best[cut - 1] - slack if len(best) > cut else -torch.inf
    anchor, label = (contest >= max(postprocess.conf - slack, open_limit)).nonzero(as_tuple=True)
    score = contest[anchor, label]
    order = score.argsort(descending=True, stable=True)
    anchor, label, score = anchor[order], label[order], score[order]
    sure = (score > postprocess.conf + slack) & (score > sure_limit)
    if slack == SCORE_ROUNDING:  # the scores are the same: so is what passes the threshold
        sure = (score >= postprocess.conf) & (score > sure_limit)
    return anchor, label, score, sure & ~ambiguous[anchor]


def _suppress(
    boxes: Tensor,
    off: Tensor,
    score: Tensor,
    label: Tensor,
    present: Tensor,
    slack: float,
    iou: float,
) -> tuple[Tensor, Tensor]:
    """Greedy suppression in both readings. Returns what is sure and what is possible, (C,)."""
    sure = present.clone()
    possible = torch.ones_like(present)
    for i in range(len(boxes)):
        rivals = (label == label[i]) & (score >= score[i] - slack)
        rivals[i] = False
        rivals[i + 1 :] &= possible[i + 1 :]
        rivals[:i] &= possible[:i]
        index = rivals.nonzero().squeeze(1)
        if not len(index):
            continue
        low, high = _overlap_bounds(boxes[i], off[i], boxes[index], off[index])
        if (high > iou).any():
            sure[i] = False
        certainly_better = sure[index] & (score[index] > score[i] + slack)
        if (certainly_better & (low > iou)).any():
            possible[i] = False
    return sure, possible


def _overlap_bounds(box: Tensor, off: Tensor, boxes: Tensor, offs: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest IoU of a box with others (R,), each side of each moved by its ``off``."""
    off = off + offs  # (R,), at the sides of the intersection no more than both
    sides = torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])  # (R, 2)
    areas = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)  # (R,)
    perimeters = (box[2:] - box[:2]).sum() + (boxes[:, 2:] - boxes[:, :2]).sum(dim=1)
    spread = 2 * off * perimeters + 8 * off**2
    most = (sides + off[:, None]).clamp(min=0).prod(dim=1)
    least = (sides - off[:, None]).clamp(min=0).prod(dim=1)
    high = most / (areas - spread - most).clamp(min=1e-9)
    low = least / (areas + spread - least).clamp(min=1e-9)
    return low - IOU_ROUNDING, high + IOU_ROUNDING


def _cut(
    score: Tensor, sure: Tensor, possible: Tensor, slack: float, most: int
) -> tuple[Tensor, Tensor]:
    """Only the best of an image stay: who is among them surely, who possibly."""
    if int(possible.sum()) <= most:
        return sure, possible
    rivals = score[None, :] >= score[:, None] - slack  # (C, C)
    betters = score[None, :] > score[:, None] + slack
    sure_now = sure & ((rivals & possible).sum(dim=1) <= most)
    return sure_now, possible & ((betters & sure).sum(dim=1) < most)
