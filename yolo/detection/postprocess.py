"""Scores to detections: confidence threshold, non-maximum suppression, the best few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torchvision.ops import nms

from yolo.records import Detections


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
    labels: Literal["best_class", "all_classes"] = "best_class"  # one of a box, or all that pass

    def __call__(self, boxes_xyxy_px: Tensor, scores: Tensor) -> list[Detections]:
        """Float32 (B, N, 4) and (B, N, K) -> each image's detections, in the frame of the boxes."""
        if self.labels == "all_classes":
            candidates, label_of_box = scores.flatten(1), None  # (B, N, K) -> (B, N * K)
        else:
            candidates, label_of_box = scores.max(dim=2)  # (B, N) each
        candidates = candidates.nan_to_num(nan=-1.0)  # topk would take NaN for the best of all
        count = min(self.max_candidates, candidates.shape[1])
        best, order = candidates.topk(count, dim=1)  # (B, count), descending
        passing = (best >= self.conf).sum(dim=1).tolist()  # the one wait for the device
        if label_of_box is None:
            box, label = order // scores.shape[2], order % scores.shape[2]
        else:
            box, label = order, label_of_box.gather(1, order)
        return [
            self._suppress(boxes_xyxy_px[i, box[i, :n]], best[i, :n], label[i, :n])
            for i, n in enumerate(passing)
        ]

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """Suppress within each class: classes are moved apart, in float64 so that none blurs."""
        boxes64 = boxes.double()
        extent = boxes64.max() - boxes64.min() + 1 if len(boxes) else 0.0
        kept = nms(boxes64 + (labels * extent)[:, None], scores.double(), self.iou)
        kept = kept[: self.max_detections]
        return Detections(boxes_xyxy_px=boxes[kept], scores=scores[kept], labels=labels[kept])
