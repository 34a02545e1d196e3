"""What the truth of a large data set costs in memory, with more and more loader processes."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Iterator
from itertools import islice

import numpy as np

from benchmarks.figures import Figure, Goal, Settings
from benchmarks.memory import MB, in_fresh_process, proportional_bytes, trim_heap
from yolo.data.annotations import Annotations
from yolo.data.loader import TrainingBatches
from yolo.data.sampling import SampleOrder, StepSampler
from yolo.data.transforms.augment import Augment
from yolo.records import Sample

WORKERS = (0, 1, 2, 4)
LARGE = (118_000, 860_000)
"""Images and boxes of COCO's train2017."""

SMALL = (64, 64)
REPEATS = 3
GROWTH_MB = Goal("at most", 1)
"""No growth, but for what two measurements of the same differ by."""

IMAGE_SIZE_PX = 32


def lacks_linux(settings: Settings) -> str | None:
    """The sentence for a system that does not tell how processes share memory."""
    del settings
    return None if sys.platform == "linux" else "the memory of processes is read from Linux's /proc"


def measure_annotations(settings: Settings) -> Iterator[Figure]:
    """Memory with the large set less memory with a small one, in all processes together."""
    images, boxes = large = (2_000, 15_000) if settings.tiny else LARGE
    cost = in_fresh_process(annotations_cost, large)
    for workers, size in cost.items():
        what = f"{images:,} images, {boxes:,} boxes, loader processes: {workers}"
        yield Figure(what, size / MB, "MB")
    growth = (cost[WORKERS[-1]] - cost[0]) / WORKERS[-1]
    goal = None if settings.tiny else GROWTH_MB
    yield Figure("growth with each process", growth / MB, "MB", goal)


def annotations_cost(large: tuple[int, int]) -> dict[int, float]:
    """Bytes that a set's annotations cost, by the number of loader processes.

    Args:
        large: its images and boxes.
    """
    # PyTorch advises against more workers than cores; here they are what is looked at.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    small_set = random_annotations(*SMALL)
    before = {workers: _memory(small_set, workers) for workers in WORKERS}
    large_set = random_annotations(*large)
    return {workers: _memory(large_set, workers) - before[workers] for workers in WORKERS}


def random_annotations(images: int, boxes: int) -> Annotations:
    """A packed truth with names as long as COCO's."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, IMAGE_SIZE_PX, (boxes, 2, 2)), axis=1)
    return Annotations.pack(
        image_ids=np.arange(images),
        file_names=[f"{number:012d}.jpg" for number in range(images)],
        sizes_hw=np.full((images, 2), IMAGE_SIZE_PX),
        image_index=rng.integers(0, images, boxes),
        boxes_xyxy_px=corners.reshape(boxes, 4),
        labels=rng.integers(0, 80, boxes),
        ignored=np.zeros(boxes, bool),
    )


class TruthOnly:
    """A data set whose images cost nothing.

    Every process reads the truth of all images before it loads its first: as after a long time,
    when each has met each image.
    """

    def __init__(self, annotations: Annotations) -> None:
        self._annotations = annotations
        self._image = np.zeros((IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), np.uint8)
        self._read_by = 0

    def __len__(self) -> int:
        return len(self._annotations)

    def load(self, index: int) -> Sample:
        if self._read_by != os.getpid():
            self._read_by = os.getpid()
            for number in range(len(self)):
                self._sample(number)
        return self._sample(index)

    def _sample(self, index: int) -> Sample:
        boxes, labels, ignored = self._annotations.truth(index)
        self._annotations.file_name(index)
        return Sample(
            image=self._image,
            boxes_xyxy_px=boxes.copy(),
            labels=labels.astype(np.int64),
            ignored=ignored.copy(),
            image_id=int(self._annotations.image_ids[index]),
            original_size_hw=self._annotations.size_hw(index),
        )


def _memory(annotations: Annotations, workers: int) -> float:
    """Bytes of this process and its loader processes, after each has read everything."""
    sampler = StepSampler(
        order=SampleOrder(length=len(annotations), seed=0),
        batch_size=1,
        micro_batch_size=1,
        size_px=lambda step: IMAGE_SIZE_PX,
    )
    batches = TrainingBatches(
        dataset=TruthOnly(annotations),
        augment=Augment(transforms=[]),
        sampler=sampler,
        workers=workers,
    )
    trim_heap()  # what making the set has left behind is not its cost
    found = []
    for _ in range(REPEATS):
        others = set(multiprocessing.active_children())
        one_from_each = max(1, workers)
        assert len(list(islice(batches.from_step(0), one_from_each))) == one_from_each
        children = [child.pid for child in set(multiprocessing.active_children()) - others]
        assert len(children) == workers
        found.append(proportional_bytes([os.getpid(), *filter(None, children)]))
        batches.close()
    return statistics.median(found)
