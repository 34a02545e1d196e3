"""Small trainings of every generation and encoder, on images that stay the same."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.detectors import make_config
from tests.gpu.device import RANKS
from yolo.factory.detector import build_coder, build_detector, build_loss
from yolo.factory.evaluator import accuracy_of
from yolo.factory.learner import build_optimizer
from yolo.models.encoders import ENCODERS
from yolo.records import Batch, Sample
from yolo.train.distributed import Ranks
from yolo.train.learner import Learner
from yolo.train.precision import Precision

CLASS_NAMES = ["circle", "square", "star", "ring"]
STEPS, IMAGES, BOXES = 30, 8, 3


@dataclass(frozen=True)
class Case:
    """A detector: its encoder, its neck (which names the generation), and the side of its input."""

    encoder: str
    neck: str
    size_px: int = 96
    head: dict[str, Any] | None = None


GENERATIONS = {
    "yolov3": Case("darknet_tiny", "yolov3"),
    "yolov2": Case("resnet18", "yolov2"),
    "yolov1": Case("darknet_tiny", "yolov1", 128, {"dropout": 0}),
}
CASES = {
    **GENERATIONS,
    **{encoder: Case(encoder, "yolov3") for encoder in ENCODERS},
    "darknet19": Case("darknet19", "yolov2"),
    "extraction": Case("extraction", "yolov1", 128, {"dropout": 0}),
    "darknet_tiny": Case("darknet_tiny", "yolov3_tiny"),
    "resnet18": Case("resnet18", "yolov3_spp"),
}
"""Every encoder, and every neck."""


def make_sample(place: int, size_px: int) -> Sample:
    """Noise with a few boxes; the same for the same place in the batch."""
    generator = np.random.default_rng(place)
    corners = np.sort(generator.uniform(0, size_px, (BOXES, 2, 2)), axis=1)  # low and high, x and y
    return Sample(
        image=generator.integers(0, 256, (size_px, size_px, 3), np.uint8),
        boxes_xyxy_px=corners.reshape(BOXES, 4).astype(np.float32),
        labels=generator.integers(0, len(CLASS_NAMES), BOXES),
        ignored=np.arange(BOXES) == (0 if place == 1 else -1),  # one region of all
        image_id=place,
        original_size_hw=(size_px, size_px),
    )


def make_batch(case: Case, places: range = range(IMAGES)) -> Batch:
    return Batch.from_samples([make_sample(place, case.size_px) for place in places])


def make_learner(
    case: Case,
    precision: Precision = Precision("fp32"),  # noqa: B008 - it cannot be changed
    *,
    ranks: Ranks = RANKS,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    prepare: Callable[[nn.Module], object] = lambda model: None,
    dtype: torch.dtype = torch.float32,
    gradient_clip: float | None = 10.0,
) -> Learner:
    """With all that a step may do: clipping, averaging, counting; Adam unless told otherwise."""
    config = make_config(case.encoder, case.neck, image_size=case.size_px, head=case.head)
    model = build_detector(config, CLASS_NAMES).to(ranks.device, dtype)
    prepare(model)
    loss = build_loss(config, build_coder(config), CLASS_NAMES).to(ranks.device, dtype)
    return Learner(
        model=model,
        loss=loss,
        optimizer=build_optimizer(config, model) if optimizer is None else optimizer(model),
        schedule=lambda step: 0.3,
        precision=precision,
        ranks=ranks,
        images_in_step=IMAGES,
        gradient_clip=gradient_clip,
        ema_decay=0.9,
        accuracy=accuracy_of(loss),
    )


def train(learner: Learner, batch: Batch, steps: int = STEPS) -> list[float]:
    """The loss of every step but those that fp16's scaler gave up."""
    losses = []
    for step in range(steps):
        result = learner.step(step, iter([batch]), 1)
        assert not result.faults or result.backed_off, result.faults
        if result.terms:
            losses.append(torch.stack(list(result.terms.values())).sum())
    return torch.stack(losses).tolist()


def of_dtype(batch: Batch, dtype: torch.dtype) -> Batch:
    """With the boxes in another precision."""
    boxes = batch.targets.boxes_cxcywh_norm.to(dtype)
    return replace(batch, targets=replace(batch.targets, boxes_cxcywh_norm=boxes))
