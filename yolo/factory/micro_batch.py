"""``training.micro_batch_size: auto``: the largest micro-batch that the memory holds."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import takewhile

import numpy as np
import torch

from yolo.config import Config, Resolved, TaskConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.data.image_cache import memory_bytes
from yolo.errors import UserError
from yolo.factory.data import local_processes
from yolo.factory.learner import Parts, build_learner, build_parts
from yolo.models.summary import dry_run
from yolo.records import Batch, Sample
from yolo.train.distributed import Ranks
from yolo.train.failures import explain_out_of_memory
from yolo.train.learner import Learner

KEY = "training.micro_batch_size"
ORIGIN = "the largest that the memory holds"
"""Where the number in place of ``auto`` came from, in a run's config.yaml."""

GPU_SHARE = 0.9  # of a GPU's free memory that a step may take: fragments and boxes vary
CPU_SHARE = 0.5  # of a machine's memory that may be kept for the backward pass
BOXES = 64  # in each image of a step that is tried


def settle_micro_batch(
    resolved: Resolved, train: DetectionDataset, val: DetectionDataset, ranks: Ranks
) -> Resolved:
    """The config with a number in place of ``micro_batch_size: auto``; any other stays as it is.

    On a GPU training steps are tried. On a CPU, where one that does not fit ends the process, what
    a step keeps for its backward pass, in fp32, may take half of the memory.
    """
    config = resolved.config
    if config.training.micro_batch_size != "auto":
        return resolved
    alone = replace(ranks, rank=0, world_size=1)
    fits = _limit(config, build_parts(config, train, val, alone), alone)
    size = find_largest(config.training.batch_size, ranks, fits)
    del fits
    gc.collect()  # the network that was tried
    torch.cuda.empty_cache()
    return resolved.with_values({KEY: size}, ORIGIN)


def find_largest(batch_size: int, ranks: Ranks, fits: Callable[[int], bool]) -> int:
    """The largest size that fits on every rank, 1 if none does.

    It divides a rank's share of the batch, or the whole batch where the shares are not equal.
    """
    share = -(-batch_size // ranks.world_size)
    divided = batch_size if batch_size % ranks.world_size else share
    sizes = [size for size in range(1, share + 1) if divided % size == 0]
    return min(ranks.gather(max(takewhile(fits, sizes), default=1)))


def _limit(config: TaskConfig, parts: Parts, alone: Ranks) -> Callable[[int], bool]:
    if alone.device.type == "cuda":
        train = partial(train_on_noise, config, build_learner(config, parts, alone))
        return partial(fits_gpu, alone.device, train)
    image_bytes = dry_run(parts.model, config.data.largest_side_px()).activation_bytes
    room = CPU_SHARE * (memory_bytes() or math.inf) / local_processes()
    return lambda images: images * image_bytes <= room


def fits_gpu(device: torch.device, train: Callable[[int], object], images: int) -> bool:
    """Whether ``train(images)`` leaves a margin of the GPU's free memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    room = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        with explain_out_of_memory(device, "a smaller micro-batch is taken"):
            train(images)
    except UserError:
        return False
    return torch.cuda.max_memory_reserved(device) <= GPU_SHARE * room


def train_on_noise(config: TaskConfig, learner: Learner, images: int) -> None:
    """Take a training step on so many images of the largest size.

    It is the training's last step: what is frozen for a while is frozen no more.
    """
    side_px, generator = config.data.largest_side_px(), np.random.default_rng(0)
    boxes = BOXES if isinstance(config, Config) else 1  # an image of a classifier has one label
    corners = np.sort(generator.uniform(0, side_px, (boxes, 2, 2)), axis=1)  # low and high, x and y
    noise = Sample(
        image=generator.integers(0, 256, (side_px, side_px, 3), np.uint8),
        boxes_xyxy_px=corners.reshape(boxes, 4).astype(np.float32),
        labels=np.zeros(boxes, np.int64),
        ignored=np.zeros(boxes, bool),
        image_id=0,
        original_size_hw=(side_px, side_px),
    )
    # batch norm refuses one image where the last map is a single cell
    batch = Batch.from_samples([noise] * max(images, 2))
    learner.step(config.training.steps - 1, iter([batch]), 1)
