"""Scores to detections: confidence threshold, non-maximum suppression, the best few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torchvision.ops import nms

from yolo.records import Detections

Labels = Literal["best_class", "all_classes"]
"""Of a box: its best class alone, or, as Darknet emits them, every class whose score passes."""


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """Turn decoded boxes and scores into detections, image by image, never class by class.

    ``max_candidates`` of an image, its best, go into the suppression, whose cost is quadratic: at a
    low ``conf`` nearly every anchor passes.
    """

    conf: float  # lowest score that counts
    iou: float  # of two boxes of one class that overlap by more, the better stays
    max_detections: int = 300
    max_candidates: int = 4096
    labels: Labels = "best_class"

    def __call__(self, boxes_xyxy_px: Tensor, scores: Tensor) -> list[Detections]:
        """Float32 (B, N, 4) and (B, N, K) -> each image's detections, in the frame of the boxes."""
        best, label = scores.max(dim=2)  # (B, N) each
        best = best.nan_to_num(nan=-1.0)  # topk would take NaN for the best of all
        best, box = best.topk(min(self.max_candidates, best.shape[1]), dim=1)  # (B, M), descending
        passing = (best >= self.conf).sum(dim=1).tolist()  # one wait for the whole batch
        label = label.gather(1, box)
        found = []
        for i, n in enumerate(passing):
            rows, values, labels = box[i, :n], best[i, :n], label[i, :n]
            if self.labels == "all_classes":
                rows, values, labels = self._pairs(scores[i], rows, values)
            found.append(self._suppress(boxes_xyxy_px[i, rows], values, labels))
        return found

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
        """Suppress within each class: classes are moved apart, in float64 so that none blurs."""
        boxes64 = boxes.double()
        extent = boxes64.max() - boxes64.min() + 1 if len(boxes) else 0.0
        kept = nms(boxes64 + (labels * extent)[:, None], scores.double(), self.iou)
        kept = kept[: self.max_detections]
        return Detections(boxes_xyxy_px=boxes[kept], scores=scores[kept], labels=labels[kept])
