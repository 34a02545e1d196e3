"""Batches for training and for evaluation, made by worker processes that end with their parent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from yolo.data.sampling import StepSampler
from yolo.data.transforms.augment import Augment, letterbox_sample
from yolo.data.workers import (
    START_METHOD,
    explain_shortage,
    lost_worker,
    prepare_worker,
    start_workers,
)
from yolo.errors import UserError, one_line
from yolo.records import Batch, Sample

POOL_BYTES = 256 * 2**20
"""Most decoded images that a process keeps to mix them: some 280 of COCO's."""


class ImageData(Protocol):
    """What a loader needs of a data set."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample: ...


class TrainingBatches:
    """The endless micro-batches of one rank, from any step on.

    What comes out depends on the seed and the sampler alone, not on the number of workers (0 does
    the work in this process). ``pool_bytes`` of decoded images are kept where several are mixed.
    """

    def __init__(
        self,
        *,
        dataset: ImageData,
        augment: Augment,
        sampler: StepSampler,
        workers: int = 0,
        seed: int = 0,
        pool_bytes: int = POOL_BYTES,
        pin_memory: bool = False,
    ) -> None:
        load = DecodedPool(dataset.load, pool_bytes).load if augment.mixes_until else dataset.load
        make = partial(augment.make, load=load, seed=seed)
        self._batches = partial(_batches, make, workers=workers, pin_memory=pin_memory)
        self._running: Generator[Batch, None, None] | None = None
        self._sampler = sampler
        self.micro_batches_per_step = sampler.micro_batches_per_step

    def from_step(self, step: int) -> Iterator[Batch]:
        """The micro-batches from the first one of ``step`` on; ends those given out before."""
        self.close()
        self._running = self._batches(self._sampler.from_step(step))
        return self._running

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None


class EvaluationBatches:
    """All images once, letterboxed, in the data set's order.

    Batches are cut before they are dealt out to the ranks (rank r gets batches r, r + W, ...), so
    that what stands in a batch does not depend on the number of ranks; the last one of all may be
    smaller. Workers are started for each pass; 0 does the work in this process.
    """

    def __init__(
        self,
        *,
        dataset: ImageData,
        image_size_px: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        starts = range(0, len(dataset), batch_size)[rank::world_size]
        self._cuts = [list(range(a, min(a + batch_size, len(dataset)))) for a in starts]
        make = partial(_letterboxed, dataset, image_size_px)
        workers = min(workers, len(self._cuts))
        self._batches = partial(_batches, make, workers=workers, pin_memory=pin_memory)

    def __len__(self) -> int:
        return len(self._cuts)

    def __iter__(self) -> Iterator[Batch]:
        return self._batches(self._cuts)


def _letterboxed(dataset: ImageData, size_px: int, index: int) -> Sample:
    return letterbox_sample(dataset.load(index), size_px)


class DecodedPool:
    """Keeps what was loaded last; only a cache: what is no longer there is loaded again.

    Nobody may change a sample that comes out: the same one may come out again. An image of more
    than ``limit_bytes`` is not kept at all.
    """

    def __init__(self, load: Callable[[int], Sample], limit_bytes: int) -> None:
        self._load, self._limit_bytes = load, limit_bytes
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        self._bytes = 0

    def load(self, index: int) -> Sample:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        sample = self._load(index)
        if sample.image.nbytes <= self._limit_bytes:
            self._kept[index] = sample
            self._bytes += sample.image.nbytes
            while self._bytes > self._limit_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.image.nbytes
        return sample


@dataclass(frozen=True)
class _KeyedBatches(Dataset):
    """Batches by the keys of their samples, as PyTorch's loader wants them.

    A user's mistake travels as a value: raised in a worker, it would arrive as a traceback.
    """

    make: Callable[[Any], Sample]

    def __getitem__(self, keys: Sequence[Any]) -> Batch | str:
        try:
            return Batch.from_samples([self.make(key) for key in keys])
        except UserError as error:
            return str(error)
        except (OSError, MemoryError) as error:
            return explain_shortage(error) or one_line(str(error))


def _batches(
    make: Callable[[Any], Sample], keys: Iterable[list[Any]], *, workers: int, pin_memory: bool
) -> Generator[Batch, None, None]:
    """Batches of the samples with these keys; closing the generator ends the workers."""
    if workers > 0:
        # Before the fork: the children inherit an OpenCV without a thread pool to wait for.
        cv2.setNumThreads(0)
    loader = DataLoader(
        _KeyedBatches(make),
        sampler=keys,
        batch_size=None,  # a list of keys is a batch already
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=prepare_worker if workers > 0 else None,
        prefetch_factor=4 if workers > 0 else None,  # batches that each worker keeps ready
        multiprocessing_context=START_METHOD if workers > 0 else None,
        generator=torch.Generator(),  # leaves the global one, and so a run's dropout, alone
    )
    batches: Any = start_workers(loader) if workers > 0 else iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        # Tensors come over a connection to the worker, and on a GPU's machine through a thread.
        raise lost_worker(error, batches) or error from None
    finally:  # not left to the iterator's own end: the traceback of what is raised holds it
        if workers > 0:
            batches.end()
