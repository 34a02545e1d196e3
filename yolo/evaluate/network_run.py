"""One pass of a network over a data set, on all ranks: what the evaluators of every task share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from yolo.boxes import cxcywh_to_xyxy
from yolo.data.loader import EvaluationBatches
from yolo.letterbox import Letterbox
from yolo.records import Batch, Sample
from yolo.train.distributed import Ranks
from yolo.train.interruption import Interruption, WaitEnded
from yolo.train.precision import Precision
from yolo.train.progress import Accuracy, add_terms

Decoded = TypeVar("Decoded")


@dataclass(frozen=True, kw_only=True)
class RunTotals:
    """What a run over all images, on all ranks, adds up to."""

    losses: dict[str, float]  # mean of each term over the images
    counts: dict[str, np.ndarray]  # (2,) by name: right answers, of how many
    images: int
    network_seconds: float  # of the slowest rank
    total_seconds: float  # the same, with decoding

    def loss_figures(self) -> dict[str, float]:
        """The terms' sum as ``loss``, each term as ``loss/<name>``."""
        terms = {f"loss/{name}": value for name, value in self.losses.items()}
        return {"loss": sum(self.losses.values()), **terms}

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.total_seconds, 1e-9)


@dataclass(frozen=True, kw_only=True)
class NetworkRun:
    """Runs a network over a data set."""

    batches: EvaluationBatches | Sequence[Batch]  # letterboxed; the i-th is rank i % world_size's
    images: int  # of all ranks
    precision: Precision
    ranks: Ranks
    loss: nn.Module | None = None  # None, of an exported file, computes no terms
    accuracy: Accuracy | None = None

    @torch.inference_mode()
    def run(
        self,
        model: nn.Module,
        interruption: Interruption,
        *,
        decode: Callable[[Any], Decoded],
        keep: Callable[[int, Batch, Decoded], None],
    ) -> RunTotals | None:
        """Run a network once, in evaluation mode; it is left in the mode that it has.

        ``decode`` turns its outputs into answers on the host, and its time is counted; ``keep``
        gets index, batch and answers of each of this rank's batches. All ranks return the same:
        None if any of them was interrupted.
        """
        was_training, device = model.training, self.ranks.device
        losses: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        images, seconds, stopped = 0, np.zeros(2), False
        model.eval()
        try:
            for index, batch in enumerate(interruption.heed(self.batches)):
                on_device = batch.to(device)
                start = time.perf_counter()
                with self.precision.autocast(device):
                    outputs = model(on_device.images)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                network = time.perf_counter()
                decoded = decode(outputs)
                seconds += np.array([network, time.perf_counter()]) - start
                images += len(batch)
                if self.loss is not None:
                    add_terms(losses, self.loss(outputs, on_device.targets, self.images))
                if self.accuracy is not None:
                    add_terms(counts, self.accuracy(outputs, on_device.targets))
                keep(index, batch, decoded)
        except WaitEnded:
            stopped = True
        finally:
            model.train(was_training)
        mine = (
            {name: float(term) for name, term in losses.items()},
            {name: count.cpu().numpy() for name, count in counts.items()},
            (images, *seconds.tolist(), stopped),
        )
        return _put_together(self.ranks.gather(mine))


def _put_together(of_ranks: Sequence[tuple]) -> RunTotals | None:
    """The ranks' totals; one without a batch has no terms."""
    losses, counts, sums = zip(*of_ranks, strict=True)
    images, network_seconds, total_seconds, stopped = np.array(sums).T
    if stopped.any():
        return None
    return RunTotals(
        losses=reduce(add_terms, losses, {}),
        counts=reduce(add_terms, counts, {}),
        images=int(images.sum()),
        network_seconds=float(network_seconds.max()),
        total_seconds=float(total_seconds.max()),
    )


def letterbox_of(batch: Batch, i: int) -> Letterbox:
    """How image ``i`` of a batch was fitted into the network's input."""
    height, width = batch.original_sizes_hw[i].tolist()
    return Letterbox.fit((height, width), batch.images.shape[-1])


def truth_without_padding(batch: Batch, i: int) -> Sample:
    """Image ``i`` as the network gets it and its truth, cut out of the letterbox's padding."""
    box, mine = letterbox_of(batch, i), batch.targets.image_index == i
    rows = slice(box.pad_top, box.pad_top + box.scaled_hw[0])
    columns = slice(box.pad_left, box.pad_left + box.scaled_hw[1])
    boxes_px = cxcywh_to_xyxy(batch.targets.boxes_cxcywh_norm[mine] * box.size_px)
    return Sample(
        image=batch.images[i, :, rows, columns].permute(1, 2, 0).numpy(),  # (3, h, w) -> (h, w, 3)
        boxes_xyxy_px=(boxes_px - torch.tensor([box.pad_left, box.pad_top] * 2)).numpy(),
        labels=batch.targets.labels[mine].numpy(),
        ignored=batch.targets.ignored[mine].numpy(),
        image_id=int(batch.image_ids[i]),
        original_size_hw=box.source_hw,
    )
