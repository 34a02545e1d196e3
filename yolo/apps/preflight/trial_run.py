"""The training's own parts with nothing written: the stages that compute take their steps here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from yolo.config import Config
from yolo.data.formats.detection import DetectionDataset
from yolo.factory.learner import build_learner, micro_batch_size
from yolo.factory.tasks import Parts, build_parts
from yolo.factory.training import SINGLE_VALUE
from yolo.records import Batch, Targets
from yolo.train.distributed import Ranks
from yolo.train.failures import explain_out_of_memory, explain_single_value
from yolo.train.learner import Learner, StepResult
from yolo.train.precision import Precision

WARMUP_STEPS = 5
"""The learning rate rises over them; the config's schedule would hardly change in so few steps."""


@dataclass
class TrialRun:
    """A learner like the training's, and the first of its micro-batches."""

    parts: Parts
    learner: Learner  # with the config's optimizer, its rate constant after a short rise
    precision: Precision  # chosen as the training would
    device: torch.device
    batch: Batch
    step_number: int = 0  # of the next step

    def step(self, batch: Batch) -> StepResult:
        """An optimizer step on one batch, finished when it returns.

        Raises:
            UserError: out of memory, or one image too small for batch norm.
        """
        advice = "make training.micro_batch_size, data.image_size or data.multi_scale.max smaller"
        with explain_out_of_memory(self.device, advice), explain_single_value(SINGLE_VALUE):
            result = self.learner.step(self.step_number, iter([batch]), 1)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        assert result is not None
        self.step_number += 1
        return result


def build_trial_run(
    config: Config, train: DetectionDataset, val: DetectionDataset, ranks: Ranks
) -> TrialRun:
    """Build what the training would, the initial weights included.

    Raises:
        UserError: the weights cannot be had, or an image not be loaded.
    """
    parts = build_parts(config, train, val, ranks, pretrained=True)
    learner = build_learner(
        config,
        parts,
        ranks,
        schedule=lambda step: min(1.0, (step + 1) / WARMUP_STEPS),
        images_per_step=micro_batch_size(config, ranks),
    )
    batch = next(parts.batches.from_step(0))
    parts.batches.close()
    return TrialRun(parts, learner, learner.precision, ranks.device, batch)


def first_images(batch: Batch, count: int) -> Batch:
    """The first ``count`` images of a batch with their truth."""
    targets = batch.targets
    kept = targets.image_index < count
    counts = torch.bincount(targets.image_index[kept], minlength=1)
    return Batch(
        images=batch.images[:count],
        targets=Targets(
            boxes_cxcywh_norm=targets.boxes_cxcywh_norm[kept],
            labels=targets.labels[kept],
            image_index=targets.image_index[kept],
            ignored=targets.ignored[kept],
            max_per_image=int(counts.max()),
        ),
        image_ids=batch.image_ids[:count],
        original_sizes_hw=batch.original_sizes_hw[:count],
    )
