"""What a config's training will do, as pictures: its images as the network gets them, its rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from yolo.apps.report.drawing import count_boxes, draw_tile
from yolo.apps.report.plots import Line
from yolo.boxes import cxcywh_to_xyxy
from yolo.config import Config, TaskConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.factory.data import build_training_batches
from yolo.factory.detector import build_classifier, build_detector
from yolo.factory.learner import build_schedule
from yolo.models.layers import Normalise
from yolo.records import Batch
from yolo.train.distributed import Ranks
from yolo.train.schedules import Plateau

LEAST_TILE_PX = 320  # smaller images are enlarged, so that the text on them can be read


def training_step(config: TaskConfig, dataset: DetectionDataset, step: int) -> list[Batch]:
    """All micro-batches of an optimizer step, from 0 on, as a single process trains on them."""
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    with closing(build_training_batches(config, dataset, ranks)) as batches:
        return list(islice(batches.from_step(step), batches.micro_batches_per_step))


def build_normalise(config: TaskConfig, class_names: Sequence[str]) -> Normalise:
    """The first layer of the config's model, which holds no weights but mean and deviation."""
    if isinstance(config, Config):
        return build_detector(config, class_names).normalise
    return build_classifier(config, class_names).normalise


def denormalise(normalised: Tensor, normalise: Normalise) -> np.ndarray:
    """What a network's first layer made of its images (B, 3, S, S), as uint8 (B, S, S, 3) again."""
    pixels = (normalised * normalise.std + normalise.mean) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def draw_step(
    batches: Sequence[Batch], normalise: Normalise, class_names: Sequence[str]
) -> Iterator[np.ndarray]:
    """A tile for each image, through the first layer and back, with the boxes of the loss."""
    for batch in batches:
        targets = batch.targets
        images = denormalise(normalise(batch.images), normalise)
        size_px = images.shape[1]
        boxes_xyxy_px = cxcywh_to_xyxy(targets.boxes_cxcywh_norm * size_px).numpy()
        for index, image_id in enumerate(batch.image_ids.tolist()):
            mine = (targets.image_index == index).numpy()
            ignored = targets.ignored.numpy()[mine]
            yield draw_tile(
                images[index],
                boxes_xyxy_px[mine],
                targets.labels.numpy()[mine],
                class_names,
                side_px=max(size_px, LEAST_TILE_PX),
                title=f"id {image_id} · {size_px} px · {count_boxes(ignored)}",
                ignored=ignored,
            )


def learning_rate_curves(name: str, config: TaskConfig) -> Iterator[Line]:
    """The optimizer's rate before each step, and the encoder's where it has its own.

    A plateau's is drawn as if the monitored figure always rose, and its name notes it.
    """
    training = config.training
    schedule, kind = build_schedule(config), str(training.schedule.type)
    if isinstance(schedule, Plateau):
        kind += ": depends on results, drawn as if the figure always rose"
    steps = np.arange(training.steps)
    factors = np.array([schedule(step) for step in steps.tolist()])
    rate, encoder_rate = training.optimizer.learning_rate, training.encoder_learning_rate
    yield Line(name=f"{name} ({kind})", x=steps, y=rate * factors)
    if encoder_rate is not None and encoder_rate != rate:
        yield Line(name=f"{name}, encoder ({kind})", x=steps, y=encoder_rate * factors)
