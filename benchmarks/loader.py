"""The training loader on real images: its speed in several settings, and where the time goes."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.figures import Figure, Goal, Settings
from benchmarks.timing import Rounds, take_turns
from yolo.config.schema.transforms import default_augment
from yolo.data.disk_cache import DiskCache
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.images import decode
from yolo.data.loader import ImageData, TrainingBatches
from yolo.data.sampling import SampleOrder, StepSampler
from yolo.data.transforms.augment import Augment, Mosaic
from yolo.data.transforms.transform_list import COLOUR, build_transform
from yolo.records import Batch, Sample

MOST_IMAGES = 80
BATCH_SIZE = 8
REPEATS = 10
"""Copies of the data set that mosaic works on: the pool of decoded images must not hold them all,
as it cannot hold COCO."""
ENDLESS = 10**9
CACHE_BYTES = 10**10
DECODED_PER_SAMPLE = Goal("at most", 1.05)
GOALS = {
    "default": Goal("at least", 130),
    "mosaic": Goal("at least", 100),
    "cached": Goal("at least", 250),
}
"""Images per second at 416 px."""
NAMES = {
    "decode": "plain decode",
    "default": "default transforms",
    "mosaic": "mosaic and default transforms",
    "cached": "disk cache, default transforms without those of colour",
}
PARTS = ("decode", "geometry", "colour", "rest")


def lacks_images(settings: Settings) -> str | None:
    """The sentence for a machine without the images."""
    missing = [path for path in image_paths(settings.data) if not path.exists()]
    if not missing:
        return None
    return (
        f"{missing[0]} does not exist; name with --data a folder that holds "
        "annotations/instances_train2017.json and train2017/"
    )


def measure_loader(settings: Settings) -> Iterator[Figure]:
    """Images per second of one loader process, and what share of a sample's time each part takes.

    The work is done in this process, with OpenCV's threads off as in a worker's.
    """
    annotations, images = image_paths(settings.data)
    dataset = CocoDataset(annotations=annotations, images=images).limit(MOST_IMAGES)
    size_px = 64 if settings.tiny else 416
    profile = Profile(dataset, size_px)
    many = Counted(dataset.select(np.tile(np.arange(len(dataset)), REPEATS)))
    with tempfile.TemporaryDirectory() as folder:
        cached = DiskCache(dataset, side_px=size_px, limit_bytes=CACHE_BYTES, folder=Path(folder))
        streams = {
            "default": _stream(dataset, _transforms(), size_px),
            "mosaic": _stream(many, _transforms(), size_px, mosaic=Mosaic(1.0, ENDLESS)),
            "cached": _stream(cached, _transforms(without=COLOUR), size_px),
        }
        rounds = _measure(dataset, streams, profile, settings.rounds)
    batches = _count_batches(dataset)
    for name, text in NAMES.items():
        goal = None if settings.tiny else GOALS.get(name)
        done = len(dataset) if name == "decode" else batches * BATCH_SIZE
        text = f"{text}, {size_px} px" if name in streams else text
        yield Figure(text, done / rounds.median(name), "images/s", goal)
    per_sample = many.decoded / (settings.rounds * batches * BATCH_SIZE)
    yield Figure("mosaic: images decoded per sample", per_sample, "times", DECODED_PER_SAMPLE)
    yield from profile.figures()


def _measure(
    dataset: DetectionDataset,
    streams: Mapping[str, Iterator[Batch]],
    profile: Profile,
    rounds: int,
) -> Rounds:
    """Everything once per round, over as many images each."""

    def consume(stream: Iterator[Batch]) -> None:
        for _ in islice(stream, _count_batches(dataset)):
            pass

    def decode_only() -> None:
        for index in range(len(dataset)):
            decode(dataset.image_path(index))

    work = {name: lambda stream=stream: consume(stream) for name, stream in streams.items()}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        return take_turns({"decode": decode_only, **work, "profile": profile.run}, rounds=rounds)
    finally:
        cv2.setNumThreads(threads)


class Counted:
    """Images, and how many of them were decoded."""

    def __init__(self, images: ImageData) -> None:
        self._images = images
        self.decoded = 0

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> Sample:
        """The image at its full size, with its truth."""
        self.decoded += 1
        return self._images.load(index)


class Profile:
    """The parts of a sample's making, one after the other, each with its own time.

    Args:
        dataset: the images.
        size_px: side of the square.
    """

    def __init__(self, dataset: DetectionDataset, size_px: int) -> None:
        self._dataset = dataset
        self._size_px = size_px
        self._move = Augment(transforms=_transforms(without=COLOUR))
        colour = [settings for settings in _transforms() if settings["type"] in COLOUR]
        self._colour = [build_transform(settings) for settings in colour]
        self._epoch = 0
        self._seconds: list[dict[str, float]] = []

    def run(self) -> None:
        """Make batches of all images."""
        seconds = dict.fromkeys(PARTS, 0.0)
        for first in range(0, len(self._dataset), BATCH_SIZE):
            indices = range(first, min(first + BATCH_SIZE, len(self._dataset)))
            samples = [self._make(index, seconds) for index in indices]
            start = time.perf_counter()
            Batch.from_samples(samples)
            seconds["rest"] += time.perf_counter() - start
        self._seconds.append(seconds)
        self._epoch += 1

    def _make(self, index: int, seconds: dict[str, float]) -> Sample:
        seed = (0, self._epoch, index)
        generator = np.random.default_rng(seed)
        for transform in self._colour:
            transform.set_random_state(generator, random.Random(index))
        moments = [time.perf_counter()]
        sample = self._dataset.load(index)
        moments.append(time.perf_counter())
        moved = self._move(sample, size_px=self._size_px, seed=seed)
        moments.append(time.perf_counter())
        image = moved.image
        for transform in self._colour:
            image = transform(image=image)["image"]
        moments.append(time.perf_counter())
        for part, spent in zip(PARTS, np.diff(moments).tolist(), strict=False):
            seconds[part] += spent
        return moved

    def figures(self) -> Iterator[Figure]:
        """A sample's time, and of it the shares; of the rounds but the first the median."""
        kept = self._seconds[1:]
        medians = {part: statistics.median(spent[part] for spent in kept) for part in PARTS}
        total = sum(medians.values())
        yield Figure("one sample, default transforms", 1e3 * total / len(self._dataset), "ms")
        for part, seconds in medians.items():
            yield Figure(f"share of {part}", 100 * seconds / total, "%")


def image_paths(data: Path) -> tuple[Path, Path]:
    """Annotations and images of the folder that ``--data`` names."""
    return data / "annotations" / "instances_train2017.json", data / "train2017"


def _count_batches(dataset: DetectionDataset) -> int:
    return -(-len(dataset) // BATCH_SIZE)


def _transforms(without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The default list, or a part of it."""
    transforms = [transform.model_dump() for transform in default_augment("detect")]
    return [settings for settings in transforms if settings["type"] not in without]


def _stream(
    images: ImageData,
    transforms: Sequence[Mapping[str, Any]],
    size_px: int,
    mosaic: Mosaic | None = None,
) -> Iterator[Batch]:
    augment = Augment(transforms=transforms, mosaic=mosaic)
    sampler = StepSampler(
        order=SampleOrder(length=len(images), seed=0),
        batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
        size_px=lambda step: size_px,
        mixes_until=augment.mixes_until,
    )
    batches = TrainingBatches(dataset=images, augment=augment, sampler=sampler)
    return batches.from_step(0)
