"""Scores a classifier: top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from yolo.evaluate.network_run import NetworkRun, truth_without_padding
from yolo.records import Batch, Detections
from yolo.train.evaluation import Evaluation, Pictures


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluator:
    """Score a classifier on a data set by how often its best answers hold the truth.

    Attributes:
        network: over images with one label each, its accuracy ``top_k``.
        class_names: label -> name.
        monitor: ``top1`` or ``top5``, the figure that decides.
        pictures: draws truth and best answer; None draws nothing.
        picture_count: how many images to draw, spread over the data: it may be sorted by class.
    """

    network: NetworkRun
    class_names: Sequence[str]
    monitor: str
    pictures: Pictures | None = None
    picture_count: int = 0

    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool]) -> Evaluation | None:
        """Run the network once over all images; None if any rank was interrupted."""
        pictures: list[np.ndarray] = []

        def keep(_: int, batch: Batch, scores: Tensor) -> None:
            if self.pictures is not None and self.network.ranks.is_main:
                left = self.picture_count - len(pictures)
                pictures.extend(self._draw(self.pictures, batch, scores, left))

        run = self.network.run(model, interrupted, decode=_probabilities, keep=keep)
        if run is None:
            return None
        images, hits = self.network.images, {name: int(c[0]) for name, c in run.counts.items()}
        shares = {name: count / images for name, count in hits.items()}
        figures = {**shares, **run.loss_figures()}
        lines = [
            f" {name.replace('top', 'top-')} accuracy  = {shares[name]:.4f}"
            f"  ({count:,} of {images:,} images)"
            for name, count in hits.items()
        ]
        return Evaluation(
            figure=figures[self.monitor],
            figures=figures,
            images_per_second=run.images_per_second,
            text="\n".join([*lines, f" loss            = {figures['loss']:.4f}"]),
            pictures=pictures,
        )

    def _draw(
        self, pictures: Pictures, batch: Batch, scores: Tensor, at_most: int
    ) -> list[np.ndarray]:
        """A batch's share of the pictures, its images evenly spaced."""
        share = -(-self.picture_count // len(self.network.batches))
        count, drawn = min(share, at_most, len(batch)), []
        for i in np.linspace(0, len(batch), count, endpoint=False).astype(int).tolist():
            truth = truth_without_padding(batch, i)
            score, answer = scores[i : i + 1].max(dim=1)
            frame = torch.from_numpy(truth.boxes_xyxy_px)
            best = Detections(boxes_xyxy_px=frame, scores=score, labels=answer)
            drawn.append(pictures.draw(truth, best, self.class_names))
        return drawn


def _probabilities(logits: Tensor) -> Tensor:
    """(B, K) on the host."""
    return logits.float().cpu().softmax(dim=1)
