"""Scores a classifier: top-1 and top-5 accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from yolo.apps.report.drawing import draw_boxes, side_by_side
from yolo.evaluate.metrics.top_k import top_k
from yolo.evaluate.pictures import without_padding
from yolo.records import Batch
from yolo.train.distributed import Ranks
from yolo.train.evaluation import Evaluation, sum_by_name
from yolo.train.precision import Precision
from yolo.train.throughput import add_terms


class Batches(Protocol):
    """This rank's batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class ClassificationEvaluator:
    """Score a classifier on a data set by how often its best answers hold the truth.

    Args:
        batches: this rank's letterboxed batches, each image with one label.
        images: of all ranks.
        class_names: label -> name.
        monitor: ``top1`` or ``top5``, the figure that decides.
        loss: for its terms on this data.
        precision, ranks: how and where to compute.
        pictures: how many images to draw, spread over the data: it may be sorted by class.
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
        pictures: int = 0,
    ) -> None:
        self.monitor = monitor
        self._batches, self._images, self._class_names = batches, images, class_names
        self._loss, self._precision, self._ranks = loss, precision, ranks
        self._pictures = pictures

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool]) -> Evaluation | None:
        """Run the network once over all images; None if any rank was interrupted."""
        was_training = model.training
        model.eval()
        counts: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        pictures: list[np.ndarray] = []
        stopped, seconds = False, 0.0
        try:
            for batch in self._batches:
                if interrupted():
                    stopped = True
                    break
                start = time.perf_counter()
                logits = self._score(model, batch, counts, losses)
                seconds += time.perf_counter() - start
                if self._ranks.is_main:
                    pictures += self._draw(batch, logits, self._pictures - len(pictures))
        finally:
            model.train(was_training)
        return self._collect(counts, losses, seconds, stopped, pictures)

    def _score(
        self,
        model: nn.Module,
        batch: Batch,
        counts: dict[str, Tensor],
        losses: dict[str, Tensor],
    ) -> Tensor:
        """Logits (B, K) on the host; adds to this rank's counts and losses."""
        batch = batch.to(self._ranks.device)
        with self._precision.autocast(self._ranks.device):
            logits = model(batch.images)
        add_terms(losses, self._loss(logits, batch.targets, self._images))
        add_terms(counts, top_k(logits.float(), batch.targets.labels))
        return logits.float().cpu()

    def _collect(
        self,
        counts: dict[str, Tensor],
        losses: dict[str, Tensor],
        seconds: float,
        stopped: bool,
        pictures: Sequence[np.ndarray],
    ) -> Evaluation | None:
        """Put the ranks' shares together; a rank without a batch has none."""
        hits = {name: int(count[0]) for name, count in counts.items()}
        terms = {name: float(term) for name, term in losses.items()}
        shares = self._ranks.gather((hits, terms, seconds, stopped))
        if any(share[3] for share in shares):
            return None
        hits = sum_by_name([share[0] for share in shares])
        terms = sum_by_name([share[1] for share in shares])
        seconds = max(share[2] for share in shares)
        figures = {
            **{name: count / self._images for name, count in hits.items()},
            "loss": sum(terms.values()),
            **{f"loss/{name}": term for name, term in terms.items()},
        }
        return Evaluation(
            figure=figures[self.monitor],
            figures=figures,
            images_per_second=self._images / max(seconds, 1e-9),
            text=self._table(hits, figures["loss"]),
            pictures=pictures,
        )

    def _table(self, hits: dict[str, int], loss: float) -> str:
        lines = [
            f" {name.replace('top', 'top-')} accuracy  = {count / self._images:.4f}"
            f"  ({count:,} of {self._images:,} images)"
            for name, count in hits.items()
        ]
        return "\n".join([*lines, f" loss            = {loss:.4f}"])

    def _draw(self, batch: Batch, logits: Tensor, at_most: int) -> list[np.ndarray]:
        """A batch's share of the pictures, without padding: truth left, best answer right."""
        share = -(-self._pictures // len(self._batches))
        count = min(share, at_most, len(batch))
        scores, answers = logits.softmax(dim=1).max(dim=1)
        pictures = []
        for i in np.linspace(0, len(batch), count, endpoint=False).astype(int).tolist():
            image, _ = without_padding(batch, i)
            frame = np.array([[0, 0, image.shape[1], image.shape[0]]])
            truth = batch.targets.labels[i : i + 1].numpy()
            answer, score = answers[i : i + 1].numpy(), scores[i : i + 1].numpy()
            pictures.append(
                side_by_side(
                    draw_boxes(image, frame, truth, self._class_names),
                    draw_boxes(image, frame, answer, self._class_names, scores=score),
                )
            )
        return pictures
