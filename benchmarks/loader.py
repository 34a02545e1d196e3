"""The training loader on real images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2

from benchmarks.figures import Figure, Goal, Settings
from benchmarks.timing import take_turns
from yolo.config.schema.data import default_augment
from yolo.data.augment import Augment
from yolo.data.datasets.coco import CocoDataset
from yolo.data.images import decode
from yolo.data.loader import TrainingBatches
from yolo.data.sampling import SampleOrder

MOST_IMAGES = 80
BATCH_SIZE = 8
IMAGES_PER_SECOND = Goal("at least", 90)


def lacks_images(settings: Settings) -> str | None:
    """The sentence for a machine without the images."""
    missing = [path for path in _paths(settings.data) if not path.exists()]
    if not missing:
        return None
    return (
        f"{missing[0]} does not exist; name with --data a folder that holds "
        "annotations/instances_train2017.json and train2017/"
    )


def measure_loader(settings: Settings) -> Iterator[Figure]:
    """Images per second of one loader process with the default transforms, and of decoding alone.

    The work is done in this process, with OpenCV's threads off as in a worker's.
    """
    annotations, images = _paths(settings.data)
    dataset = CocoDataset(annotations=annotations, images=images).limit(MOST_IMAGES)
    size_px = 64 if settings.tiny else 416
    stream = _stream(dataset, size_px)
    batches = -(-len(dataset) // BATCH_SIZE)

    def load() -> None:
        for _ in islice(stream, batches):
            pass

    def decode_only() -> None:
        for index in range(len(dataset)):
            decode(dataset.image_path(index))

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        seconds = take_turns({"load": load, "decode": decode_only}, rounds=settings.rounds)
    finally:
        cv2.setNumThreads(threads)
    goal = None if settings.tiny else IMAGES_PER_SECOND
    loaded = batches * BATCH_SIZE / seconds.median("load")
    yield Figure(f"default transforms, {size_px} px, one process", loaded, "images/s", goal)
    yield Figure("plain decode", len(dataset) / seconds.median("decode"), "images/s")


def _paths(data: Path) -> tuple[Path, Path]:
    return data / "annotations" / "instances_train2017.json", data / "train2017"


def _stream(dataset: CocoDataset, size_px: int) -> Iterator:
    batches = TrainingBatches(
        dataset=dataset,
        augment=Augment(transforms=[transform.model_dump() for transform in default_augment()]),
        order=SampleOrder(length=len(dataset), seed=0),
        image_size_px=size_px,
        batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
    )
    return batches.from_step(0)
