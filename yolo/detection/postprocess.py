"""Scores to detections: confidence threshold, non-maximum suppression, the best few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import nms

from yolo.records import Detections

Labels = Literal["best_class", "all_classes"]
"""Of a box: its best class alone, or, as Darknet emits them, every class whose score passes."""

Suppression = Literal["greedy", "soft"]

SOFT_SIGMA = 0.2
"""Of Soft-NMS. The paper's 0.5 gains AP too, but loses up to 2 points of AP50."""

MOST_AT_ONCE = 1000
"""Boxes of all classes that one suppression takes on a CPU, whose cost is quadratic there."""


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """Turn decoded boxes and scores into detections, image by image.

    ``max_candidates`` of an image, its best, go into the suppression, whose cost is quadratic: at a
    low ``conf`` nearly every anchor passes.
    """

    conf: float  # lowest score that counts
    iou: float  # of two boxes of one class that overlap by more, the better stays
    max_detections: int = 300
    max_candidates: int = 4096
    labels: Labels = "best_class"
    suppression: Suppression = "greedy"

    def __call__(self, boxes_xyxy_px: Tensor, scores: Tensor) -> list[Detections]:
        """Float32 (B, N, 4) and (B, N, K) -> each image's detections, in the frame of the boxes."""
        best, label = scores.max(dim=2)  # (B, N) each
        best = best.nan_to_num(nan=-1.0)  # topk would take NaN for the best of all
        best, box = best.topk(min(self.max_candidates, best.shape[1]), dim=1)  # (B, M), descending
        passing = (best >= self.conf).sum(dim=1).tolist()  # one wait for the whole batch
        label = label.gather(1, box)
        chosen = []
        for i, n in enumerate(passing):
            rows, values, labels = box[i, :n], best[i, :n], label[i, :n]
            if self.labels == "all_classes":
                rows, values, labels = self._pairs(scores[i], rows, values)
            chosen.append((boxes_xyxy_px[i, rows], values, labels))
        if self.suppression == "soft" and chosen:
            return self._soften(*map(list, zip(*chosen, strict=True)))
        return [self._suppress(*candidates) for candidates in chosen]

    def _pairs(self, scores: Tensor, box: Tensor, best: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Box, score and label of the best pairs of box and class, out of an image's best boxes.

        None is lost: each of ``max_candidates`` boxes has a pair no worse than any of the others'.
        """
        full = len(best) == self.max_candidates
        rows = scores[box]  # (M, K)
        place, label = (rows >= (best[-1] if full else self.conf)).nonzero(as_tuple=True)
        values, order = rows[place, label].sort(descending=True, stable=True)
        order = order[: self.max_candidates]
        return box[place[order]], values[: self.max_candidates], label[order]

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """Suppress within each class; where classes are moved apart, float64 blurs none."""
        boxes64, scores64 = boxes.double(), scores.double()
        if boxes.is_cpu and len(boxes) > MOST_AT_ONCE:
            classes = labels.argsort(stable=True).split(labels.bincount().tolist())
            of_classes = [rows[nms(boxes64[rows], scores64[rows], self.iou)] for rows in classes]
            kept = torch.cat(of_classes).sort().values  # the order of the scores again
        else:
            extent = boxes64.max() - boxes64.min() + 1 if len(boxes) else 0.0
            kept = nms(boxes64 + (labels * extent)[:, None], scores64, self.iou)
        kept = kept[: self.max_detections]
        return Detections(boxes_xyxy_px=boxes[kept], scores=scores[kept], labels=labels[kept])

    def _soften(
        self, boxes: list[Tensor], scores: list[Tensor], labels: list[Tensor]
    ) -> list[Detections]:
        """Soft-NMS with a Gaussian (https://arxiv.org/abs/1704.04503, section 3); no ``iou`` in it.

        Again and again the box of the highest score is taken, and the scores of the others of its
        class are multiplied by exp(-IoU^2 / sigma). All images at once, and nothing waits for the
        device. What falls below ``conf`` is no detection.
        """
        left = pad_sequence(scores, batch_first=True, padding_value=-math.inf)  # (B, M)
        classes = pad_sequence(labels, batch_first=True)  # (B, M)
        corners = pad_sequence(boxes, batch_first=True).permute(2, 0, 1).contiguous()  # (4, B, M)
        areas = (corners[2] - corners[0]) * (corners[3] - corners[1])
        taken = classes[:, : self.max_detections].clone()  # (B, D), to be filled
        values = left[:, : self.max_detections].clone()
        for n in range(taken.shape[1]):
            values[:, n], taken[:, n] = left.max(dim=1)
            best = taken[:, n : n + 1]  # (B, 1)
            box = corners.gather(2, best.expand(4, -1, -1))  # (4, B, 1)
            low, high = torch.maximum(corners[:2], box[:2]), torch.minimum(corners[2:], box[2:])
            width, height = (high - low).clamp(min=0)
            shared = width * height * (classes == classes.gather(1, best))  # (B, M)
            union = areas + areas.gather(1, best) - shared
            overlap = shared / union.clamp(min=torch.finfo(union.dtype).tiny)
            left = left * (overlap.square() / -SOFT_SIGMA).exp()
            left = left.scatter(1, best, -math.inf)
        found = []
        for i, n in enumerate((values >= self.conf).sum(dim=1).tolist()):
            kept = taken[i, :n]
            found.append(Detections(boxes[i][kept], values[i, :n], labels[i][kept]))
        return found
