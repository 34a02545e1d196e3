"""Batches of noise, and their content as text."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from yolo.data.loader import POOL_BYTES, ImageData, TrainingBatches
from yolo.data.sampling import SampleOrder, StepSampler
from yolo.data.transforms.augment import Augment, MixUp, Mosaic
from yolo.errors import UserError
from yolo.records import Batch, Sample

TRANSFORMS = [
    {"type": "MultiplicativeNoise", "p": 0.5, "elementwise": True},
    {"type": "GaussNoise", "p": 0.5},
    {"type": "ColorJitter", "p": 0.5},
    {"type": "HorizontalFlip", "p": 0.5},
    {"type": "Affine", "p": 1, "scale": [0.8, 1.2], "rotate": [-9, 9]},
    {"type": "Resize", "p": 0.3},
    {"type": "HSVJitter", "p": 0.5},
    {"type": "Haze", "p": 0.5},
]


class Noise:
    """A data set of noise; image ``broken`` cannot be loaded, image ``deadly`` ends the process."""

    def __init__(self, length: int = 10, broken: int = -1, deadly: int = -1) -> None:
        self.length, self.broken, self.deadly = length, broken, deadly

    def __len__(self) -> int:
        return self.length

    def load(self, index: int) -> Sample:
        if index == self.broken:
            raise UserError(f"the image {index}.jpg cannot be decoded.")
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        generator = np.random.default_rng(index)
        size = (40 + index, 60)
        count = index % 3
        low = generator.uniform(0, 20, (count, 2))
        return Sample(
            image=generator.integers(0, 256, (*size, 3), np.uint8),
            boxes_xyxy_px=np.concatenate([low, low + 15], axis=1).astype(np.float32),
            labels=np.arange(count),
            ignored=np.zeros(count, bool),
            image_id=100 + index,
            original_size_hw=size,
        )


def training(
    dataset: ImageData | None = None,
    *,
    mosaic: Mosaic | None = None,
    mixup: MixUp | None = None,
    workers: int = 0,
    pool_bytes: int = POOL_BYTES,
    **sampling: Any,
) -> TrainingBatches:
    dataset = dataset or Noise()
    augment = Augment(transforms=TRANSFORMS, mosaic=mosaic, mixup=mixup)
    defaults: dict[str, Any] = {
        "order": SampleOrder(length=len(dataset), seed=5),
        "size_px": lambda step: 64,
        "batch_size": 8,
        "micro_batch_size": 3,
        "mixes_until": augment.mixes_until,
    }
    return TrainingBatches(
        dataset=dataset,
        augment=augment,
        sampler=StepSampler(**(defaults | sampling)),
        workers=workers,
        seed=5,
        pool_bytes=pool_bytes,
    )


def take(batches: TrainingBatches, steps: int, start: int = 0) -> list[Batch]:
    taken = list(islice(batches.from_step(start), steps * batches.micro_batches_per_step))
    batches.close()
    return taken


def digest(batches: Iterable[Batch]) -> list[str]:
    """One hash per image over its id, size, pixels and boxes."""
    found = []
    for batch in batches:
        for place, image_id in enumerate(batch.image_ids.tolist()):
            mine = batch.targets.image_index == place
            parts = (
                batch.images[place],
                batch.targets.boxes_cxcywh_norm[mine],
                batch.targets.labels[mine],
                batch.targets.ignored[mine],
                batch.original_sizes_hw[place],
            )
            content = b"".join(part.contiguous().numpy().tobytes() for part in parts)
            found.append(f"{image_id} {hashlib.sha256(content).hexdigest()}")
    return found
