"""Scores a detector: the network once over the data, then the COCO metric at any confidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from yolo.boxes import cxcywh_to_xyxy
from yolo.coders.anchor import AnchorCoder
from yolo.engine.distributed import Ranks
from yolo.engine.evaluation import Evaluation
from yolo.engine.precision import Precision
from yolo.letterbox import Letterbox
from yolo.metrics.coco import CocoMetric, CocoResult
from yolo.postprocess import Postprocess
from yolo.records import Batch, Detections
from yolo.visualize import draw_boxes, draw_detections, side_by_side

PICTURE_CONF = 0.25
"""Lowest score that is drawn: a picture shows what one would use, the metric wants everything."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the network found in all images of the data, on all ranks.

    Attributes:
        image_ids: int64 (D,), row by row in the order of the data.
        labels: int64 (D,), contiguous labels.
        boxes_xyxy_px: float32 (D, 4), pixels of the original images.
        scores: float32 (D,).
        losses: mean of each loss term over the images.
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
    images: int = 0
    network_seconds: float = 0.0
    total_seconds: float = 0.0
    interrupted: bool = False


class DetectionEvaluator:
    """Score a detector on a data set with the COCO metric.

    Args:
        batches: this rank's letterboxed batches: batch i of the whole data goes to rank
            i modulo the number of ranks.
        images: of all ranks.
        metric: on rank 0; None elsewhere.
        category_ids: label -> category id of the data set.
        class_names: label -> name.
        monitor: the figure that decides.
        coder, postprocess: raw maps to detections.
        loss: for its terms on this data; None computes none.
        precision, ranks: how and where to compute.
        pictures: how many images to draw.
        per_class: add each class's AP to the table.
    """

    def __init__(
        self,
        *,
        batches: Iterable[Batch],
        images: int,
        metric: CocoMetric | None,
        category_ids: Sequence[int],
        class_names: Sequence[str],
        monitor: str,
        coder: AnchorCoder,
        postprocess: Postprocess,
        loss: nn.Module | None,
        precision: Precision,
        ranks: Ranks,
        pictures: int = 0,
        per_class: bool = False,
    ) -> None:
        self.monitor = monitor
        self._batches, self._images, self._metric = batches, images, metric
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
            "found_boxes": float(len(found.scores)),
        }
        return Evaluation(
            figure=result.stats[self.monitor],
            figures=figures,
            images_per_second=found.images / max(found.total_seconds, 1e-9),
            text=self.table(result),
            pictures=found.pictures,
        )

    def score(self, found: Found) -> CocoResult:
        """The COCO figures; on rank 0 alone."""
        assert self._metric is not None
        return self._metric.evaluate(
            found.image_ids, self._category_ids[found.labels], found.boxes_xyxy_px, found.scores
        )

    def table(self, result: CocoResult) -> str:
        """The 12 lines, and a line for each class on request."""
        if not self._per_class:
            return result.table
        rows = [
            f" {name:<20} AP = {figures['AP']:.3f}  AP50 = {figures['AP50']:.3f}"
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
        share = _Share(rows=[], losses={})
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
            for name, term in self._loss(raw, on_device.targets, self._images).items():
                share.losses[name] = share.losses.get(name, 0) + term
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
        losses = {name: float(term) for name, term in share.losses.items()}
        mine = (
            np.concatenate(share.rows) if share.rows else np.empty((0, 8)),
            losses,
            (share.images, share.network_seconds, share.total_seconds, share.interrupted),
        )
        shares = self._ranks.gather(mine)
        counts = np.array([counts for _, _, counts in shares])
        if counts[:, 3].any():
            return None
        rows = np.concatenate([rows for rows, _, _ in shares])
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        names = [name for _, losses, _ in shares for name in losses]
        return Found(
            image_ids=rows[:, 1].astype(np.int64),
            labels=rows[:, 2].astype(np.int64),
            boxes_xyxy_px=rows[:, 4:].astype(np.float32),
            scores=rows[:, 3].astype(np.float32),
            losses={
                name: sum(losses.get(name, 0.0) for _, losses, _ in shares)
                for name in dict.fromkeys(names)
            },
            images=int(counts[:, 0].sum()),
            network_seconds=float(counts[:, 1].max()),
            total_seconds=float(counts[:, 2].max()),
            pictures=pictures,
        )

    def _picture(self, batch: Batch, found: Sequence[Detections], i: int) -> np.ndarray:
        """The network's own image without its padding: truth on the left, prediction right."""
        height, width = batch.original_sizes_hw[i].tolist()
        box = Letterbox.fit((height, width), batch.images.shape[-1])
        rows = slice(box.pad_top, box.pad_top + box.scaled_hw[0])
        columns = slice(box.pad_left, box.pad_left + box.scaled_hw[1])
        image = batch.images[i, :, rows, columns].permute(1, 2, 0).numpy()  # (3, h, w) -> (h, w, 3)
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
