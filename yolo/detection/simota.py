"""SimOTA: the assignment of YOLOX, by what the network predicts (arXiv 2107.08430, section 2.1)."""

from __future__ import annotations

from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo.boxes import pairwise_iou
from yolo.detection import assign
from yolo.detection.coders import AnchorCoder
from yolo.records import Targets

SIDE = 5  # of the square of cells around a truth's: their centres are within 2.5 cells of its own
MOST_PLACES = 10  # of a truth, and as many IoUs add up to its number of places
IOU_WEIGHT = 3.0


@torch.no_grad()
def assign_simota(
    targets: Targets, boxes_cxcywh_px: Tensor, coder: AnchorCoder, raw: assign.Maps
) -> assign.Assignment:
    """Give every truth the boxes near its centre that cost least to train.

    Candidates are all anchors of all levels in the 5 x 5 cells around the truth's centre. The cost
    of one is the loss of its classes plus 3 times -log(IoU) of its predicted box. A truth gets as
    many as its ten largest IoUs add up to, rounded down, but one at least. A place that several
    truths chose goes to the one whose cost is least; YOLOX asks also those that did not choose it.
    P = T * 10.
    """
    truth, place, outside = assign.candidates(boxes_cxcywh_px, coder, raw, side=SIDE)
    found = assign.raw_at(raw, targets.image_index[truth], place)  # (T * C, 5 + K)
    cost, overlap = _cost(coder, found, boxes_cxcywh_px[truth], targets.labels[truth], place)

    shape = (len(targets), coder.anchors_px[..., 0].numel() * SIDE**2)  # (T, C)
    overlap = overlap.masked_fill(outside, 0.0).view(shape).topk(MOST_PLACES, dim=1).values
    wanted = overlap.sum(dim=1, keepdim=True).long().clamp(min=1)  # (T, 1)
    cost = cost.masked_fill(outside | targets.ignored[truth], inf).view(shape)
    cost, choice = cost.topk(MOST_PLACES, dim=1, largest=False)  # (T, 10) each
    cost = cost.masked_fill(torch.arange(MOST_PLACES, device=cost.device) >= wanted, inf).flatten()
    first = torch.arange(0, len(truth), shape[1], device=cost.device)[:, None]  # (T, 1)
    chosen = (first + choice).flatten()  # (P,)
    level, anchor, row, column = (each[chosen] for each in place)
    truth, place = truth[chosen], (level, anchor, row, column)

    index = assign.flat_index(targets.image_index[truth], place, raw)
    least = cost.new_full((sum(assign.count_boxes(raw)),), inf)
    least = least.scatter_reduce(0, index, cost, "amin")[index]  # (P,)
    return assign.find_owners(targets, truth, place, cost.isinf() | (cost > least), raw)


def _cost(
    coder: AnchorCoder, found: Tensor, boxes_cxcywh_px: Tensor, labels: Tensor, place: assign.Place
) -> tuple[Tensor, Tensor]:
    """What it costs that outputs (N, 5 + K) at places learn truths, and their IoU: (N,) each."""
    level, anchor, row, column = place
    boxes = coder.boxes_in_cells(found, level=level, anchor=anchor)
    truths = coder.corners_in_cells(boxes_cxcywh_px, level=level, row=row, column=column)
    overlap = pairwise_iou(boxes[:, None], truths[:, None])[:, 0, 0]  # (N, 1, 1) -> (N,)
    logits = found[:, 5:]
    own = logits.gather(1, labels[:, None]).squeeze(1)
    exclusive = coder.class_activation == "softmax"
    classes = (logits.logsumexp(dim=1) if exclusive else F.softplus(logits).sum(dim=1)) - own
    return classes - IOU_WEIGHT * (overlap + 1e-8).log(), overlap
