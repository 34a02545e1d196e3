"""What the stages share: the config, what others opened, a training's own parts; and a finding."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from markupsafe import Markup

from yolo.config import Config, Resolved
from yolo.data.formats.detection import DetectionDataset
from yolo.factory.data import Split, micro_batch_size
from yolo.factory.learner import build_learner, build_parts
from yolo.factory.micro_batch import settle_micro_batch
from yolo.factory.training import SINGLE_VALUE
from yolo.records import Batch, Targets
from yolo.train.distributed import Ranks
from yolo.train.failures import explain_out_of_memory, explain_single_value
from yolo.train.learner import StepResult

SAMPLE_STREAM = 2  # sets the draw of a preflight's samples apart from the other uses of the seed
WARMUP_STEPS = 5  # of a trial run; the config's schedule would hardly change in so few steps
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage found."""

    summary: str  # a line without a full stop
    fault: str | None = None  # the sentence on what would spoil the run
    warnings: Sequence[str] = ()  # sentences on what is worth a look
    lines: Sequence[str] = ()  # more for the terminal
    figures: Mapping[str, Any] = field(default_factory=dict)  # more for the json
    blocks: Sequence[Markup] = ()  # more for the page


class TrialRun:
    """A learner like the training's, which writes nothing, and the first of its micro-batches.

    The initial weights are loaded; the optimizer's rate is constant after a short rise.
    """

    def __init__(self, preflight: Preflight) -> None:
        ranks, datasets = preflight.ranks, (preflight.datasets["train"], preflight.datasets["val"])
        preflight.resolved = settle_micro_batch(preflight.resolved, *datasets, ranks)
        config = preflight.config
        self.parts = build_parts(config, *datasets, ranks)
        self.learner = build_learner(
            config,
            self.parts,
            ranks,
            schedule=lambda step: min(1.0, (step + 1) / WARMUP_STEPS),
            images_in_step=micro_batch_size(config, ranks),
        )
        self.device, self._steps = ranks.device, 0
        self.batch = next(self.parts.batches.from_step(0))
        self.parts.batches.close()

    def step(self, batch: Batch) -> StepResult:
        """An optimizer step on one batch, finished when it returns."""
        advice = "make training.micro_batch_size, data.image_size or data.multi_scale.max smaller"
        with explain_out_of_memory(self.device, advice), explain_single_value(SINGLE_VALUE):
            result = self.learner.step(self._steps, iter([batch]), 1)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        assert result is not None
        self._steps += 1
        return result


@dataclass(kw_only=True)
class Preflight:
    """The config, and what the stages have opened for those after them."""

    resolved: Resolved  # its stages put numbers in place of ``auto``
    ranks: Ranks  # this process, alone on its device
    datasets: dict[Split, DetectionDataset] = field(default_factory=dict)  # train and val
    trial: TrialRun | None = None  # built by the stage that overfits one batch

    @property
    def config(self) -> Config:
        config = self.resolved.config
        assert isinstance(config, Config)
        return config

    def shuffled(self, dataset: DetectionDataset) -> np.ndarray:
        """The indices of its images in an order that the config's seed decides."""
        seed = np.random.SeedSequence((self.config.seed, SAMPLE_STREAM))
        return np.random.default_rng(seed).permutation(len(dataset))


def within(seconds: float, items: Iterable[T]) -> Iterator[T]:
    """The items, one at least, until the time is up."""
    end = time.perf_counter() + seconds
    for item in items:
        yield item
        if time.perf_counter() > end:
            return


def first_images(batch: Batch, count: int) -> Batch:
    """The first ``count`` images of a batch with their truth."""
    names = ("boxes_cxcywh_norm", "labels", "image_index", "ignored")
    kept = int((batch.targets.image_index < count).sum())  # they are sorted by image
    tensors: dict[str, Any] = {name: getattr(batch.targets, name)[:kept] for name in names}
    most = int(torch.bincount(tensors["image_index"], minlength=1).max())
    return Batch(
        images=batch.images[:count],
        targets=Targets(**tensors, max_per_image=most),
        image_ids=batch.image_ids[:count],
        original_sizes_hw=batch.original_sizes_hw[:count],
    )
