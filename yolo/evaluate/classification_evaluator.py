"""Scores a classifier: top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from yolo.evaluate.metrics.accuracy import top_k
from yolo.evaluate.network_run import Batches, NetworkRun, truth_without_padding
from yolo.records import Batch, Detections
from yolo.train.distributed import Ranks
from yolo.train.evaluation import Evaluation, Pictures
from yolo.train.precision import Precision


class ClassificationEvaluator:
    """Score a classifier on a data set by how often its best answers hold the truth.

    Args:
        batches, images, loss, precision, ranks: see ``NetworkRun``; each image has one label.
        class_names: label -> name.
        monitor: ``top1`` or ``top5``, the figure that decides.
        pictures: draws truth and best answer; None draws nothing.
        picture_count: how many images to draw, spread over the data: it may be sorted by class.
    """

    def __init__(
        self,
        *,
        batches: Batches,
        images: int,
        class_names: Sequence[str],
        monitor: str,
        loss: nn.Module,
        precision: Precision,
        ranks: Ranks,
        pictures: Pictures | None = None,
        picture_count: int = 0,
    ) -> None:
        self.monitor = monitor
        self._class_names = class_names
        self._pictures = pictures if ranks.is_main else None
        self._picture_count = picture_count
        self._network = NetworkRun(
            batches=batches,
            images=images,
            loss=loss,
            accuracy=lambda logits, targets: top_k(logits, targets.labels),
            precision=precision,
            ranks=ranks,
        )

    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool]) -> Evaluation | None:
        """Run the network once over all images; None if any rank was interrupted."""
        pictures: list[np.ndarray] = []

        def keep(index: int, batch: Batch, scores: Tensor) -> None:
            pictures.extend(self._draw(batch, scores, self._picture_count - len(pictures)))

        run = self._network.run(model, interrupted, decode=_probabilities, keep=keep)
        if run is None:
            return None
        hits = {name: int(count[0]) for name, count in run.counts.items()}
        shares = {name: count / self._network.images for name, count in hits.items()}
        figures = {**shares, **run.loss_figures()}
        lines = [
            f" {name.replace('top', 'top-')} accuracy  = {shares[name]:.4f}"
            f"  ({count:,} of {self._network.images:,} images)"
            for name, count in hits.items()
        ]
        return Evaluation(
            figure=figures[self.monitor],
            figures=figures,
            images_per_second=run.images_per_second,
            text="\n".join([*lines, f" loss            = {figures['loss']:.4f}"]),
            pictures=pictures,
        )

    def _draw(self, batch: Batch, scores: Tensor, at_most: int) -> list[np.ndarray]:
        """A batch's share of the pictures, its images evenly spaced."""
        if self._pictures is None:
            return []
        share = -(-self._picture_count // len(self._network.batches))
        count = min(share, at_most, len(batch))
        pictures = []
        for i in np.linspace(0, len(batch), count, endpoint=False).astype(int).tolist():
            truth = truth_without_padding(batch, i)
            score, answer = scores[i : i + 1].max(dim=1)
            frame = torch.from_numpy(truth.boxes_xyxy_px)
            best = Detections(boxes_xyxy_px=frame, scores=score, labels=answer)
            pictures.append(self._pictures.draw(truth, best, self._class_names))
        return pictures


def _probabilities(logits: Tensor) -> Tensor:
    """(B, K) on the host."""
    return logits.float().cpu().softmax(dim=1)
