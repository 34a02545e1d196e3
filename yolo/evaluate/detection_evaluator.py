"""Scores a detector: the network once over the data, then the metrics at any confidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from yolo.apps.report.drawing import draw_boxes, draw_detections, side_by_side
from yolo.boxes import cxcywh_to_xyxy
from yolo.detection.postprocess import Postprocess
from yolo.evaluate.metrics.grid_accuracy import grid_accuracy
from yolo.evaluate.metrics.metric import Metric, MetricResult
from yolo.evaluate.pictures import without_padding
from yolo.letterbox import Letterbox
from yolo.records import Batch, Detections, GridMatches, Targets
from yolo.train.distributed import Ranks
from yolo.train.evaluation import Evaluation, sum_by_name
from yolo.train.precision import Precision
from yolo.train.throughput import add_terms

PICTURE_CONF = 0.25
"""Lowest score that is drawn: a picture shows what one would use, the metric wants everything."""


class DetectionLoss(Protocol):
    """A loss that also tells what the grid's accuracy is counted from."""

    def __call__(
        self, raw: Sequence[Tensor], targets: Targets, images_in_step: int
    ) -> dict[str, Tensor]:
        """Terms by name; see ``yolo.detection.losses``."""

    def matches(self, raw: Sequence[Tensor], targets: Targets) -> GridMatches:
        """What the maps say where a truth is and where none is."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the network found in all images of the data, on all ranks.

    Attributes:
        image_ids: int64 (D,), row by row in the order of the data.
        labels: int64 (D,), contiguous labels.
        boxes_xyxy_px: float32 (D, 4), pixels of the original images.
        scores: float32 (D,).
        losses: mean of each loss term over the images.
        accuracy: share of the grid's answers that are right, see ``grid_accuracy``; without those
            that nothing asked for.
        images: number of images.
        network_seconds, total_seconds: of the slowest rank, without and with decoding and
            suppression.
        pictures: truth beside prediction, uint8 (H, W, 3).
    """

    image_ids: np.ndarray
    labels: np.ndarray
    boxes_xyxy_px: np.ndarray
    scores: np.ndarray
    losses: dict[str, float]
    accuracy: dict[str, float]
    images: int
    network_seconds: float
    total_seconds: float
    pictures: Sequence[np.ndarray]

    def above(self, conf: float) -> Found:
        """Only the scores of at least ``conf``: the same as if it had been the threshold."""
        kept = self.scores >= conf
        return replace(
            self,
            image_ids=self.image_ids[kept],
            labels=self.labels[kept],
            boxes_xyxy_px=self.boxes_xyxy_px[kept],
            scores=self.scores[kept],
        )


@dataclass
class _Share:
    """What this rank has gathered so far."""

    rows: list[np.ndarray]
    losses: dict[str, Tensor]
    counts: dict[str, Tensor]
    images: int = 0
    network_seconds: float = 0.0
    total_seconds: float = 0.0
    interrupted: bool = False


class DetectionEvaluator:
    """Score a detector on a data set with one metric or several.

    Args:
        batches: this rank's letterboxed batches: batch i of the whole data goes to rank
            i modulo the number of ranks.
        images: of all ranks.
        metrics: on rank 0, none elsewhere; no two of them have a figure of the same name.
        category_ids: label -> category id of the data set.
        class_names: label -> name.
        monitor: the figure that decides.
        coder, postprocess: raw maps to detections.
        loss: for its terms and the grid's accuracy on this data; None computes none.
        precision, ranks: how and where to compute.
        pictures: how many images to draw.
        per_class: add each class's AP to the table.
    """

    def __init__(
        self,
        *,
        batches: Iterable[Batch],
        images: int,
        metrics: Sequence[Metric],
        category_ids: Sequence[int],
        class_names: Sequence[str],
        monitor: str,
        coder: nn.Module,
        postprocess: Postprocess,
        loss: DetectionLoss | None,
        precision: Precision,
        ranks: Ranks,
        pictures: int = 0,
        per_class: bool = False,
    ) -> None:
        self.monitor = monitor
        self._batches, self._images, self._metrics = batches, images, metrics
        self._category_ids, self._class_names = np.asarray(category_ids), class_names
        self._coder, self._postprocess, self._loss = coder, postprocess, loss
        self._precision, self._ranks = precision, ranks
        self._pictures, self._per_class = pictures, per_class

    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool]) -> Evaluation | None:
        """Find and score, on all ranks together; None if any of them was interrupted."""
        found = self.find(model, interrupted)
        if found is None:
            return None
        result = self._ranks.broadcast(self.score(found) if self._ranks.is_main else None)
        assert result is not None
        figures = {
            **result.stats,
            "loss": sum(found.losses.values()),
            **{f"loss/{name}": value for name, value in found.losses.items()},
            **{f"accuracy/{name}": value for name, value in found.accuracy.items()},
            "found_boxes": float(len(found.scores)),
        }
        return Evaluation(
            figure=result.stats[self.monitor],
            figures=figures,
            images_per_second=found.images / max(found.total_seconds, 1e-9),
            text=result.table,
            pictures=found.pictures,
        )

    def score(self, found: Found) -> MetricResult:
        """The figures of all metrics; on rank 0 alone."""
        assert self._metrics
        categories = self._category_ids[found.labels]
        results = [
            metric.evaluate(found.image_ids, categories, found.boxes_xyxy_px, found.scores)
            for metric in self._metrics
        ]
        return MetricResult(
            stats={name: value for result in results for name, value in result.stats.items()},
            table="\n".join(self._table_of(result) for result in results),
            per_class=results[0].per_class,
        )

    def _table_of(self, result: MetricResult) -> str:
        """A metric's own lines, and a line for each class on request."""
        if not self._per_class:
            return result.table
        rows = [
            f" {name:<20} " + "  ".join(f"{key} = {value:.3f}" for key, value in figures.items())
            for name, figures in (
                (name, result.per_class[int(category)])
                for name, category in zip(self._class_names, self._category_ids, strict=True)
                if int(category) in result.per_class
            )
        ]
        return "\n".join([result.table, *rows])

    @torch.inference_mode()
    def find(self, model: nn.Module, interrupted: Callable[[], bool]) -> Found | None:
        """Run the network once over all images; None if any rank was interrupted."""
        was_training = model.training
        model.eval()
        share = _Share(rows=[], losses={}, counts={})
        pictures: list[np.ndarray] = []
        try:
            for index, batch in enumerate(self._batches):
                if interrupted():
                    share.interrupted = True
                    break
                first = index * self._ranks.world_size + self._ranks.rank  # batch of the data
                found = self._find_in_batch(model, batch, first, share)
                wanted = self._pictures - len(pictures) if self._ranks.is_main else 0
                pictures += [self._picture(batch, found, i) for i in range(len(found))[:wanted]]
        finally:
            model.train(was_training)
        return self._collect(share, pictures)

    def _find_in_batch(
        self, model: nn.Module, batch: Batch, batch_index: int, share: _Share
    ) -> list[Detections]:
        """Detections in the frame of the network's input; adds to this rank's share."""
        on_device = batch.to(self._ranks.device)
        start = time.perf_counter()
        with self._precision.autocast(self._ranks.device):
            raw = model(on_device.images)
        self._wait()
        network = time.perf_counter()
        found = self._postprocess(*self._coder(raw))
        found = [detections.to("cpu") for detections in found]
        end = time.perf_counter()
        if self._loss is not None:
            add_terms(share.losses, self._loss(raw, on_device.targets, self._images))
            add_terms(share.counts, grid_accuracy(self._loss.matches(raw, on_device.targets)))
        share.rows += [
            self._rows(batch, i, detections, batch_index) for i, detections in enumerate(found)
        ]
        share.images += len(batch)
        share.network_seconds += network - start
        share.total_seconds += end - start
        return found

    def _rows(self, batch: Batch, i: int, detections: Detections, batch_index: int) -> np.ndarray:
        """float64 (D, 8): batch of the data, image id, label, score, xyxy in original pixels."""
        height, width = batch.original_sizes_hw[i].tolist()
        letterbox = Letterbox.fit((height, width), batch.images.shape[-1])
        boxes = letterbox.undo(detections.boxes_xyxy_px)
        rows = np.empty((len(detections), 8))
        rows[:, 0] = batch_index
        rows[:, 1] = int(batch.image_ids[i])
        rows[:, 2] = detections.labels.numpy()
        rows[:, 3] = detections.scores.numpy()
        rows[:, 4:] = boxes.numpy()
        return rows

    def _collect(self, share: _Share, pictures: Sequence[np.ndarray]) -> Found | None:
        """Put the ranks' shares together in the order of the data."""
        mine = (
            np.concatenate(share.rows) if share.rows else np.empty((0, 8)),
            {name: float(term) for name, term in share.losses.items()},
            {name: count.cpu().numpy() for name, count in share.counts.items()},
            (share.images, share.network_seconds, share.total_seconds, share.interrupted),
        )
        all_rows, losses, counts, sums = zip(*self._ranks.gather(mine), strict=True)
        totals = np.array(sums)
        if totals[:, 3].any():
            return None
        rows = np.concatenate(all_rows)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        return Found(
            image_ids=rows[:, 1].astype(np.int64),
            labels=rows[:, 2].astype(np.int64),
            boxes_xyxy_px=rows[:, 4:].astype(np.float32),
            scores=rows[:, 3].astype(np.float32),
            losses=sum_by_name(losses),
            accuracy={n: float(hit / of) for n, (hit, of) in sum_by_name(counts).items() if of},
            images=int(totals[:, 0].sum()),
            network_seconds=float(totals[:, 1].max()),
            total_seconds=float(totals[:, 2].max()),
            pictures=pictures,
        )

    def _picture(self, batch: Batch, found: Sequence[Detections], i: int) -> np.ndarray:
        """The network's own image without its padding: truth on the left, prediction right."""
        image, box = without_padding(batch, i)
        origin = torch.tensor([box.pad_left, box.pad_top] * 2)
        mine = batch.targets.image_index == i
        truth_px = cxcywh_to_xyxy(batch.targets.boxes_cxcywh_norm[mine] * box.size_px)
        truth = draw_boxes(
            image,
            (truth_px - origin).numpy(),
            batch.targets.labels[mine].numpy(),
            self._class_names,
            ignored=batch.targets.ignored[mine].numpy(),
        )
        seen = found[i].above(PICTURE_CONF)
        seen = replace(seen, boxes_xyxy_px=seen.boxes_xyxy_px - origin)
        return side_by_side(truth, draw_detections(image, seen, self._class_names))

    def _wait(self) -> None:
        if self._ranks.device.type == "cuda":
            torch.cuda.synchronize(self._ranks.device)
