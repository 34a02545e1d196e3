"""Precision over recall, and the average precisions that are read from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RECALL_LEVELS = np.linspace(0, 1, 101)
"""Where the curves of several classes are averaged."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision over recall, D detections from the most to the least confident.

    Attributes:
        recall, precision: float64 (D,), of the detections up to this one.
        scores: float64 (D,), descending.
        truths: how many there are to find.
    """

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    truths: int

    @classmethod
    def of_hits(cls, hits: np.ndarray, scores: np.ndarray, truths: int) -> Curve:
        """The curve of detections that are right or wrong.

        Args:
            hits: bool (D,), right or wrong, from the most confident on.
            scores: (D,), descending.
            truths: how many there are to find.
        """
        right = np.cumsum(hits)
        return cls(
            recall=right / max(truths, 1),
            precision=right / np.arange(1, len(right) + 1),
            scores=np.asarray(scores, np.float64),
            truths=truths,
        )

    def above(self, conf: float) -> Curve:
        """The beginning that the detections of at least a confidence draw."""
        count = int((self.scores >= conf).sum())
        return Curve(self.recall[:count], self.precision[:count], self.scores[:count], self.truths)

    def envelope(self) -> np.ndarray:
        """The best precision at this recall or a higher one: float64 (D,), never rising."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]


def average_precision(curve: Curve) -> float:
    """The area under the envelope (VOC from 2010 on); -1 without a truth."""
    if curve.truths == 0:
        return -1.0
    steps = np.diff(curve.recall, prepend=0.0)
    return float((steps * curve.envelope()).sum())


def average_precision_11(curve: Curve) -> float:
    """The mean of the envelope at the recalls 0, 0.1, .. 1 (VOC 2007); -1 without a truth.

    A recall that is just 3 of 10 reaches 0.3. The development kit's own 0.3 is 3 * 0.1, which is
    slightly larger in floating point: only there can its figure be a smaller one.
    """
    if curve.truths == 0:
        return -1.0
    return float(_at_recalls(curve, np.arange(11) / 10).mean())


def mean_precision(curves: Iterable[Curve]) -> np.ndarray:
    """The envelopes' mean at ``RECALL_LEVELS`` over the curves that have truths: float64 (101,)."""
    rows = [_at_recalls(curve, RECALL_LEVELS) for curve in curves if curve.truths]
    return np.mean(rows, axis=0) if rows else np.zeros(len(RECALL_LEVELS))


def pooled(curves: Iterable[Curve]) -> Curve:
    """All detections of several classes as one curve; classes without a truth are left out."""
    known = [curve for curve in curves if curve.truths]
    nothing = np.zeros(0)
    scores = np.concatenate([nothing, *(curve.scores for curve in known)])
    gains = [np.diff(curve.recall, prepend=0.0) > 0 for curve in known]
    hits = np.concatenate([nothing > 0, *gains])
    order = np.argsort(-scores, kind="stable")
    return Curve.of_hits(hits[order], scores[order], sum(curve.truths for curve in known))


def _at_recalls(curve: Curve, levels: np.ndarray) -> np.ndarray:
    """The best precision at each recall or a higher one; 0 where none is reached."""
    first = np.searchsorted(curve.recall, levels, side="left")  # recall never falls
    return np.append(curve.envelope(), 0.0)[first]
