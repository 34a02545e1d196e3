"""The evaluators of both tasks: the network once over the data, then its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from yolo.detection.postprocess import Postprocess
from yolo.errors import one_line
from yolo.evaluate.metrics.metric import NO_TRUTH, DetectedBoxes, Metric, MetricResult
from yolo.evaluate.network_run import NetworkRun, RunTotals, letterbox_of, truth_without_padding
from yolo.records import Batch, Detections
from yolo.train.interruption import Interruption
from yolo.train.progress import Evaluation, Pictures

PICTURE_CONF = 0.25
"""Lowest score that is drawn: a picture shows what one would use, the metric wants everything."""


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluator:
    """Score a classifier on a data set by how often its best answers hold the truth."""

    network: NetworkRun  # over images with one label each, its accuracy ``top_k``
    class_names: Sequence[str]
    monitor: str  # top1 or top5
    pictures: Pictures | None = None  # draws truth and best answer
    picture_count: int = 0  # spread over the data, which may be sorted by class

    def evaluate(self, model: nn.Module, interruption: Interruption) -> Evaluation | None:
        """Run the network once over all images; None if any rank was interrupted."""
        pictures: list[np.ndarray] = []

        def decode(logits: Tensor) -> Tensor:
            return logits.float().cpu().softmax(dim=1)

        def keep(_: int, batch: Batch, scores: Tensor) -> None:
            if self.pictures is not None and self.network.ranks.is_main:
                left = self.picture_count - len(pictures)
                pictures.extend(self._draw(batch, scores, left))

        run = self.network.run(model, interruption, decode=decode, keep=keep)
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
            headline="  ".join(f"{name} {share:.4f}" for name, share in shares.items()),
            pictures=pictures,
        )

    def _draw(self, batch: Batch, scores: Tensor, at_most: int) -> list[np.ndarray]:
        """A batch's share of the pictures, its images evenly spaced."""
        assert self.pictures is not None
        share = -(-self.picture_count // len(self.network.batches))
        count, drawn = min(share, at_most, len(batch)), []
        for i in np.linspace(0, len(batch), count, endpoint=False).astype(int).tolist():
            truth = truth_without_padding(batch, i)
            score, answer = scores[i : i + 1].max(dim=1)
            frame = torch.from_numpy(truth.boxes_xyxy_px)
            best = Detections(boxes_xyxy_px=frame, scores=score, labels=answer)
            drawn.append(self.pictures.draw(truth, best, self.class_names))
        return drawn


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the network found in all images of the data, on all ranks."""

    image_ids: np.ndarray  # int64 (D,), row by row in the order of the data
    labels: np.ndarray  # int64 (D,), contiguous labels
    boxes_xyxy_px: np.ndarray  # float32 (D, 4), pixels of the original images
    scores: np.ndarray  # float32 (D,)
    run: RunTotals
    pictures: Sequence[np.ndarray] = ()  # uint8 (H, W, 3)

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of the grid's answers that are right, without those that nothing asked for."""
        return {name: float(hits / of) for name, (hits, of) in self.run.counts.items() if of}

    @property
    def boxes(self) -> DetectedBoxes:
        """As metrics take it; the truth of a data set has labels for category ids."""
        return DetectedBoxes(self.image_ids, self.labels, self.boxes_xyxy_px, self.scores)

    def above(self, conf: float) -> Found:
        """Only the scores of at least ``conf``: the same as if it had been the threshold."""
        names = ("image_ids", "labels", "boxes_xyxy_px", "scores")
        kept = self.scores >= conf
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluator:
    """Score a detector on a data set with one metric or several."""

    network: NetworkRun
    metrics: Sequence[Metric]  # on rank 0, none elsewhere; no two have a figure of the same name
    class_names: Sequence[str]
    monitor: str
    coder: nn.Module  # raw maps to boxes and scores
    postprocess: Postprocess
    pictures: Pictures | None = None  # draws truth and detections
    picture_count: int = 0  # the first images
    per_class: bool = False  # add each class's AP to the table

    def evaluate(self, model: nn.Module, interruption: Interruption) -> Evaluation | None:
        """Find and score, on all ranks together; None if any of them was interrupted."""
        found = self.find(model, interruption)
        if found is None:
            return None
        ranks = self.network.ranks
        result = ranks.broadcast(self.score(found) if ranks.is_main else None)
        assert result is not None
        figures = {
            **result.stats,
            **found.run.loss_figures(),
            **{f"accuracy/{name}": value for name, value in found.accuracy.items()},
            "found_boxes": float(len(found.scores)),
        }
        figure = result.stats[self.monitor]
        names = dict.fromkeys((self.monitor, "AP50", "AP", "AP75", "mAP"))
        return Evaluation(
            figure=None if figure == NO_TRUTH else figure,
            figures=figures,
            images_per_second=found.run.images_per_second,
            text=result.table,
            headline="  ".join(f"{name} {figures[name]:.4f}" for name in names if name in figures),
            pictures=found.pictures,
        )

    def has_truth(self) -> bool:
        """Whether the monitored figure can be measured on these data; rank 0 alone knows."""
        nothing = np.zeros(0, np.int64)
        found = DetectedBoxes(nothing, nothing, np.zeros((0, 4)), np.zeros(0))
        results = (metric.evaluate(found).stats for metric in self.metrics)
        return all(stats.get(self.monitor) != NO_TRUTH for stats in results)

    def score(self, found: Found) -> MetricResult:
        """The figures of all metrics; on rank 0 alone."""
        assert self.metrics
        results = [metric.evaluate(found.boxes) for metric in self.metrics]
        return MetricResult(
            stats={name: value for result in results for name, value in result.stats.items()},
            table="\n".join(line for result in results for line in self._lines(result)),
            per_class=results[0].per_class,
        )

    def _lines(self, result: MetricResult) -> list[str]:
        """A metric's own table, and a line for each class on request."""
        lines = [result.table]
        for label, name in enumerate(self.class_names):
            if self.per_class and label in result.per_class:
                figures = result.per_class[label].items()
                values = "  ".join(f"{key} = {value:.3f}" for key, value in figures)
                lines.append(f" {one_line(name):<20} {values}")
        return lines

    def find(self, model: nn.Module, interruption: Interruption) -> Found | None:
        """Run the network once over all images; None if any rank was interrupted."""
        ranks, own_rows = self.network.ranks, [np.empty((0, 8))]
        pictures: list[np.ndarray] = []
        drawn = self.picture_count if self.pictures is not None and ranks.is_main else 0
        conf = max(self.postprocess.conf, PICTURE_CONF)

        def decode(raw: Sequence[Tensor]) -> list[list[Detections]]:
            """What is scored, and what pictures show of the first images: one label per box."""
            boxes, scores = self.coder(raw)
            left = drawn - len(pictures)
            to_draw = replace(self.postprocess, conf=conf, labels="best_class")
            found = self.postprocess(boxes, scores), to_draw(boxes[:left], scores[:left])
            return [[one.to("cpu") for one in each] for each in found]

        def keep(index: int, batch: Batch, found: list[list[Detections]]) -> None:
            batch_of_data, (scored, to_draw) = index * ranks.world_size + ranks.rank, found
            own_rows.extend(_rows(batch_of_data, batch, i, one) for i, one in enumerate(scored))
            pictures.extend(self._draw(batch, i, one) for i, one in enumerate(to_draw))

        run = self.network.run(model, interruption, decode=decode, keep=keep)
        if run is None:
            return None
        rows = np.concatenate(ranks.gather(np.concatenate(own_rows)))
        rows = rows[np.argsort(rows[:, 0], kind="stable")]  # the order of the data
        return Found(
            image_ids=rows[:, 1].astype(np.int64),
            labels=rows[:, 2].astype(np.int64),
            boxes_xyxy_px=rows[:, 4:].astype(np.float32),
            scores=rows[:, 3].astype(np.float32),
            run=run,
            pictures=pictures,
        )

    def _draw(self, batch: Batch, i: int, found: Detections) -> np.ndarray:
        assert self.pictures is not None
        letterbox = letterbox_of(batch, i)
        origin = torch.tensor([letterbox.pad_left, letterbox.pad_top] * 2)
        found = replace(found, boxes_xyxy_px=found.boxes_xyxy_px - origin)
        return self.pictures.draw(truth_without_padding(batch, i), found, self.class_names)


def _rows(batch_of_data: int, batch: Batch, i: int, found: Detections) -> np.ndarray:
    """float64 (D, 8): batch of the data, image id, label, score, xyxy in original pixels."""
    rows = np.empty((len(found), 8))
    rows[:, 0], rows[:, 1] = batch_of_data, int(batch.image_ids[i])
    rows[:, 2], rows[:, 3] = found.labels.numpy(), found.scores.numpy()
    rows[:, 4:] = letterbox_of(batch, i).undo(found.boxes_xyxy_px).numpy()
    return rows
