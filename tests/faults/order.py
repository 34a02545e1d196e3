"""What a training sees, and in which order, depends neither on workers nor on ranks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from tests.faults.tiny import tiny_config
from yolo.data.loader import TrainingBatches
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


def _digest(seed: int, folder: Path, *settings: str) -> str:
    """One SHA-256 for every number of workers and ranks, from a random step on; returns it."""
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
        for batch in _step(of_ranks, streams):
            for part in _bytes(batch):
                digest.update(part)
    for batches in of_ranks:
        batches.close()
    return digest.hexdigest()


def _step(of_ranks: list[TrainingBatches], streams: list[Iterator[Batch]]) -> Iterator[Batch]:
    """A step's micro-batches, in the order of the ranks."""
    for batches, stream in zip(of_ranks, streams, strict=True):
        yield from islice(stream, batches.micro_batches_per_step)


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


def order_plain(seed: int, folder: Path) -> None:
    _digest(seed, folder)


def order_repeated(seed: int, folder: Path) -> None:
    _digest(seed, folder, *REPEATED)


def order_mixed(seed: int, folder: Path) -> None:
    mixed = _digest(seed, folder, *MIXED, *REPEATED)
    assert mixed != _digest(seed, folder, *REPEATED), "nothing was mixed"


TRIALS = {"order_plain": order_plain, "order_repeated": order_repeated, "order_mixed": order_mixed}
_ONE = "one SHA-256 of ids, pixels and boxes for workers 0, 1, 2, 4 and ranks 1, 2"
CHECKED = {
    "order_plain": _ONE,
    "order_repeated": "the same with images repeated by their classes",
    "order_mixed": "the same with mosaic, mixup, several sizes and repeated images",
}
FULL = dict.fromkeys(TRIALS, 20)
QUICK = dict.fromkeys(TRIALS, 1)
