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

    Attributes:
        conf: lowest score that counts.
        iou: of two boxes of one class that overlap by more, the better stays.
        max_detections: how many are kept for an image.
        max_candidates: how many of an image's best go into the suppression: its cost is
            quadratic, and at a low ``conf`` nearly every anchor passes.
        labels: ``best_class`` gives a box one label, ``all_classes`` every one that passes.
    """

    conf: float
    iou: float
    max_detections: int = 300
    max_candidates: int = 4096
    labels: Literal["best_class", "all_classes"] = "best_class"

    def __call__(self, boxes_xyxy_px: Tensor, scores: Tensor) -> list[Detections]:
        """Detections of each image on the same device, in the frame of the given boxes.

        Args:
            boxes_xyxy_px: float32 (B, N, 4).
            scores: float32 (B, N, K).
        """
        best, label = self._candidates(scores)  # (B, M)
        best = best.nan_to_num(nan=-1.0)  # topk would take NaN for the best of all
        count = min(self.max_candidates, best.shape[1])
        best, order = best.topk(count, dim=1)  # (B, count), descending
        passing = (best >= self.conf).sum(dim=1).tolist()  # the one wait for the device
        if self.labels == "all_classes":
            anchor = order // scores.shape[2]
            label = order % scores.shape[2]
        else:
            anchor, label = order, label.gather(1, order)
        return [
            self._suppress(
                boxes_xyxy_px[image, anchor[image, :n]], best[image, :n], label[image, :n]
            )
            for image, n in enumerate(passing)
        ]

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores to choose from, (B, M), and the label of each where it is not its place."""
        if self.labels == "all_classes":
            return scores.flatten(1), scores.new_empty(0)  # (B, N, K) -> (B, N * K)
        best = scores.max(dim=2)
        return best.values, best.indices

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """Suppress within each class: classes are moved apart, in float64 so that none blurs."""
        boxes64 = boxes.double()
        extent = boxes64.max() - boxes64.min() + 1 if len(boxes) else 0.0
        kept = nms(boxes64 + (labels * extent)[:, None], scores.double(), self.iou)
        kept = kept[: self.max_detections]
        return Detections(boxes_xyxy_px=boxes[kept], scores=scores[kept], labels=labels[kept])
