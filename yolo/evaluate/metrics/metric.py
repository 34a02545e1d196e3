"""What several metrics share: detections, curves of precision over recall, right answers.

Right answers, of a grid's cells and of a classifier, are counted on the device, and nothing waits
for it. Counts are (2,) by name, right answers and of how many; those of several batches add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from yolo.records import GridMatches, Targets

RIGHT, WRONG, NOT_COUNTED = 1, 0, -1
"""What a detection is; those of ignored truths are not counted."""

NO_TRUTH = -1.0
"""In place of a figure that nothing in the ground truth counts for."""


class DetectedBoxes(NamedTuple):
    """What was found in all images of a data set."""

    image_ids: np.ndarray  # int (D,), as in the ground truth
    category_ids: np.ndarray  # int (D,), as in the ground truth, not contiguous labels
    boxes_xyxy_px: np.ndarray  # float (D, 4), in pixels of the original images
    scores: np.ndarray  # float (D,)


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The figures of one evaluation: -1 without a truth to find, 0 with some and no detection."""

    stats: dict[str, float]
    table: str  # the same for people, without a newline at the end
    per_class: dict[int, dict[str, float]]  # by category id


class Metric(Protocol):
    """Scores detections against a ground truth that stays the same between evaluations."""

    def evaluate(self, found: DetectedBoxes) -> MetricResult: ...


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Precision over recall, D detections from the most to the least confident."""

    recall: np.ndarray  # float64 (D,), of the detections up to this one
    precision: np.ndarray  # the same
    scores: np.ndarray  # float64 (D,), descending
    truths: int  # how many there are to find

    @classmethod
    def of_hits(cls, hits: np.ndarray, scores: np.ndarray, truths: int) -> PrecisionRecall:
        """The curve of detections that are right or wrong: bool (D,), by descending score (D,)."""
        right = np.cumsum(hits)
        recall, precision = right / max(truths, 1), right / np.arange(1, len(right) + 1)
        return cls(recall, precision, np.asarray(scores, np.float64), truths)

    def above(self, conf: float) -> PrecisionRecall:
        """The part that detections of at least a confidence draw."""
        n = int((self.scores >= conf).sum())
        return PrecisionRecall(self.recall[:n], self.precision[:n], self.scores[:n], self.truths)

    def best_f1(self) -> tuple[float, float, float, float]:
        """Confidence, precision, recall and F1 where that is best; zeros if nothing is right."""
        found = np.arange(1, len(self.scores) + 1)
        right = np.rint(self.precision * found)
        if not right.any():
            return 0.0, 0.0, 0.0, 0.0
        f1 = 2 * right / (found + self.truths)
        f1[:-1][self.scores[:-1] == self.scores[1:]] = -1  # a threshold keeps all equal scores
        i = int(f1.argmax())
        conf, precision, recall = self.scores[i], self.precision[i], self.recall[i]
        return float(conf), float(precision), float(recall), float(f1[i])

    def envelope(self) -> np.ndarray:
        """The best precision at this recall or a higher one: float64 (D,), never rising."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    def at_recalls(self, levels: np.ndarray) -> np.ndarray:
        """The envelope at each of some recalls; 0 where none is reached."""
        first = np.searchsorted(self.recall, levels, side="left")  # recall never falls
        return np.append(self.envelope(), 0.0)[first]


def average_precision(curve: PrecisionRecall) -> float:
    """The area under the envelope (VOC from 2010 on); -1 without a truth."""
    steps = np.diff(curve.recall, prepend=0.0)
    return float((steps * curve.envelope()).sum()) if curve.truths else -1.0


def average_precision_11(curve: PrecisionRecall) -> float:
    """The mean of the envelope at the recalls 0, 0.1, .. 1 (VOC 2007); -1 without a truth.

    A recall that is just 3 of 10 reaches 0.3. The development kit's own 0.3 is 3 * 0.1, which is
    slightly larger in floating point: only there can its figure be a smaller one.
    """
    return float(curve.at_recalls(np.arange(11) / 10).mean()) if curve.truths else -1.0


@torch.no_grad()
def grid_accuracy(matches: GridMatches) -> dict[str, Tensor]:
    """What raw maps get right in one batch: float64 (2,) by name.

    - ``class``: places of truths that give their class the largest number
    - ``object``: boxes that own a truth and claim an object
    - ``no_object``: boxes that own none and claim none
    - ``placed``: truths that own a place, of all but the ignored ones; the others lost it to a
      truth in the same cell and are not learnt
    """
    positive = matches.objectness > 0.5  # (M,), the boxes that claim an object
    right = matches.class_logits.argmax(dim=1) == matches.labels  # (P,)
    counts = {
        "class": (right & matches.counted, matches.counted),
        "object": (positive & matches.owned, matches.owned),
        "no_object": (~positive & ~matches.owned, ~matches.owned),
        "placed": (matches.placed, matches.dropped | matches.placed),
    }
    return {name: torch.stack([c.sum() for c in pair]).double() for name, pair in counts.items()}


def top_k(logits: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Images whose one label is among the best 1 (``top1``) and the best 5 (``top5``): int64 (2,).

    Another class of the same score counts as better, and so does one whose score is not a number:
    a network that answers the same for all classes has found nothing. With fewer than 6 classes
    top-5 means nothing. Instead of logits (B, K) any scores will do.
    """
    own = logits.gather(1, targets.labels[:, None])  # (B, 1)
    better = (~(logits < own)).sum(dim=1) - 1  # (B,), the truth itself is not below itself
    images = better.new_full((), len(better))
    return {f"top{k}": torch.stack([(better < k).sum(), images]) for k in (1, 5)}
