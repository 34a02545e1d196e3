"""What a training sees, and in which order, depends neither on workers nor on ranks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from tests.faults.tiny import tiny_config
from tests.faults.trial import Property
from yolo.factory.data import build_dataset, build_training_batches
from yolo.records import Batch
from yolo.train.distributed import Ranks

PROPERTY = "2 Order invariance"
STEPS, BATCH = 5, 6
WORKERS = (0, 1, 2, 4)

MIXED = (
    "data.mosaic={p: 0.7, off_for_last: 2}",
    "data.mixup={p: 0.5, off_for_last: 1}",
    "data.multi_scale={min: 32, max: 96, step: 32, every: 2}",
)
REPEATED = ("data.sampling=repeat_factor", "data.repeat_factor_threshold=0.5")


def one_order(seed: int, folder: Path, *, settings: tuple[str, ...] = ()) -> str:
    """One SHA-256 of ids, pixels and boxes for workers 0, 1, 2, 4 and ranks 1, 2.

    From a random step on. Returns it.
    """
    generator = random.Random(seed)
    first = generator.randrange(20)
    settings = (
        f"seed={seed}",
        f"training.batch_size={BATCH}",
        f"training.steps={first + STEPS}",
        "data.train.images=11",
        "data.augment=[{type: HorizontalFlip, p: 0.5}, {type: RandomBrightnessContrast, p: 0.8}]",
        *settings,
    )
    digests = {
        (workers, world_size): _sha256(folder, first, workers, world_size, micro, settings)
        for workers in WORKERS
        for world_size in (1, 2)
        for micro in (generator.choice([1, 2, 3]),)
    }
    assert len(set(digests.values())) == 1, f"from step {first}: {digests}"
    return digests[0, 1]


def _sha256(
    folder: Path, first: int, workers: int, world_size: int, micro: int, settings: tuple[str, ...]
) -> str:
    shared = folder.parent / "shared"
    more = (f"data.workers={workers}", f"training.micro_batch_size={micro}")
    config = tiny_config(shared, *settings, *more)
    dataset = build_dataset(config, "train")
    of_ranks = [
        build_training_batches(
            config, dataset, Ranks(rank=rank, world_size=world_size, device=torch.device("cpu"))
        )
        for rank in range(world_size)
    ]
    streams = [batches.from_step(first) for batches in of_ranks]
    digest = hashlib.sha256()
    for _ in range(STEPS):
        for batches, stream in zip(of_ranks, streams, strict=True):
            for batch in islice(stream, batches.micro_batches_per_step):
                digest.update(b"".join(_bytes(batch)))
    for batches in of_ranks:
        batches.close()
    return digest.hexdigest()


def _bytes(batch: Batch) -> Iterator[bytes]:
    """Image after image: id, size on disk, pixels, boxes, labels, which are ignored."""
    for index in range(len(batch)):
        mine = batch.targets.image_index == index
        yield batch.image_ids[index].numpy().tobytes()
        yield batch.original_sizes_hw[index].numpy().tobytes()
        yield batch.images[index].permute(1, 2, 0).contiguous().numpy().tobytes()
        yield batch.targets.boxes_cxcywh_norm[mine].numpy().tobytes()
        yield batch.targets.labels[mine].numpy().tobytes()
        yield batch.targets.ignored[mine].numpy().tobytes()


def order_mixed(seed: int, folder: Path) -> None:
    """The same with mosaic, mixup, several sizes and repeated images."""
    mixed = one_order(seed, folder, settings=MIXED + REPEATED)
    assert mixed != one_order(seed, folder, settings=REPEATED), "nothing was mixed"


TRIALS = [
    Property(one_order, name="order_plain", full=20, quick=1),
    Property(
        partial(one_order, settings=REPEATED),
        name="order_repeated",
        checked="the same with images repeated by their classes",
        full=20,
        quick=1,
    ),
    Property(order_mixed, full=20, quick=1),
]
