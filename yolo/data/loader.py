"""Batches for training and for evaluation, made by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from yolo.data.pool import DecodedPool
from yolo.data.sampling import SampleKey, SampleOrder, StepSampler
from yolo.data.transforms.augment import Augment, letterbox_sample
from yolo.data.transforms.mosaic import MixUp, Mosaic, draw_mix
from yolo.data.workers import (
    end_workers,
    ended_worker,
    lost_worker,
    prepare_worker,
    start_method,
    start_workers,
)
from yolo.errors import UserError
from yolo.records import Batch, Sample

PREFETCHED_BATCHES = 4
"""Batches that each worker keeps ready."""
POOL_BYTES = 256 * 2**20
"""Most decoded images that a process keeps for mosaic and MixUp: some 280 of COCO's."""


class ImageData(Protocol):
    """What a loader needs of a data set."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """The image at its full size, with its truth."""
        ...


class TrainingBatches:
    """The endless micro-batches of one rank, from any step on.

    What comes out depends on the seed, the order and the sizes alone: not on the number of
    workers, and of the ranks only in how a step's images are shared out.

    Args:
        dataset: the images.
        augment: makes the square variants.
        order: the stream of samples.
        size_px: optimizer step -> side of the square.
        batch_size: images per optimizer step, over all ranks.
        micro_batch_size: the most images in one batch that comes out.
        rank, world_size: this process among all.
        workers: processes; 0 does the work in this one.
        seed: of the augmentation.
        mosaic, mixup: make samples of several images; None does not.
        pool_bytes: decoded images that a process keeps for these, no matter for the result.
        pin_memory: put batches in page-locked memory.
    """

    def __init__(
        self,
        *,
        dataset: ImageData,
        augment: Augment,
        order: SampleOrder,
        size_px: Callable[[int], int],
        batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        seed: int = 0,
        mosaic: Mosaic | None = None,
        mixup: MixUp | None = None,
        pool_bytes: int = POOL_BYTES,
        pin_memory: bool = False,
    ) -> None:
        mixes = mosaic is not None or mixup is not None
        load = DecodedPool(dataset.load, pool_bytes).load if mixes else dataset.load
        self._samples = _Samples(_TrainingSample(load, augment, mosaic, mixup, seed))
        self._workers = workers
        self._pin_memory = pin_memory
        self._running: Generator[Batch, None, None] | None = None

        def sampler(start_step: int) -> StepSampler:
            return StepSampler(
                order=order,
                batch_size=batch_size,
                micro_batch_size=micro_batch_size,
                rank=rank,
                world_size=world_size,
                size_px=size_px,
                mosaic_until=mosaic.until_step if mosaic else 0,
                mixup_until=mixup.until_step if mixup else 0,
                start_step=start_step,
            )

        self._sampler = sampler
        self.micro_batches_per_step = sampler(0).micro_batches_per_step

    def from_step(self, step: int) -> Iterator[Batch]:
        """The micro-batches from the first one of ``step`` on; ends those given out before.

        Raises:
            UserError: (while iterating) an image cannot be loaded, or a worker is lost.
        """
        self.close()
        self._running = _batches(
            self._samples, self._sampler(step), workers=self._workers, pin_memory=self._pin_memory
        )
        return self._running

    def close(self) -> None:
        """End the workers."""
        if self._running is not None:
            self._running.close()
            self._running = None


class EvaluationBatches:
    """All images once, letterboxed, in the data set's order.

    Batches are cut before they are dealt out to the ranks (rank r gets batches r, r + W, ...), so
    that what stands in a batch does not depend on the number of ranks.

    Args:
        dataset: the images.
        image_size_px: side of the square.
        batch_size: images per batch; the last one of all may be smaller.
        rank, world_size: this process among all.
        workers: processes, started for each pass; 0 does the work in this one.
        pin_memory: put batches in page-locked memory.

    Attributes:
        number_of_images: over all ranks.
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
        self.number_of_images = len(dataset)
        self._samples = _Samples(_EvaluationSample(dataset, image_size_px))
        starts = range(0, len(dataset), batch_size)[rank::world_size]
        self._cuts = [list(range(a, min(a + batch_size, len(dataset)))) for a in starts]
        self._workers = min(workers, len(self._cuts))
        self._pin_memory = pin_memory

    def __len__(self) -> int:
        return len(self._cuts)

    def __iter__(self) -> Iterator[Batch]:
        return _batches(
            self._samples, self._cuts, workers=self._workers, pin_memory=self._pin_memory
        )


class _TrainingSample:
    def __init__(
        self,
        load: Callable[[int], Sample],
        augment: Augment,
        mosaic: Mosaic | None,
        mixup: MixUp | None,
        seed: int,
    ) -> None:
        self._load = load
        self._augment = augment
        self._mosaic = mosaic
        self._mixup = mixup
        self._seed = seed

    def __call__(self, key: SampleKey) -> Sample:
        sample = self._load(key.index)
        seed = (self._seed, key.epoch, key.place)
        mix = draw_mix(key, self._load, mosaic=self._mosaic, mixup=self._mixup, seed=self._seed)
        if mix is None:
            return self._augment(sample, size_px=key.size_px, seed=seed)
        return self._augment.mixed(sample, mix, size_px=key.size_px, seed=seed)


class _EvaluationSample:
    def __init__(self, dataset: ImageData, image_size_px: int) -> None:
        self._dataset = dataset
        self._image_size_px = image_size_px

    def __call__(self, index: int) -> Sample:
        return letterbox_sample(self._dataset.load(index), self._image_size_px)


class _Samples(Dataset):
    """A function from keys to samples as PyTorch's loader wants it.

    A user's mistake travels as a value: raised in a worker, it would arrive as a traceback.
    """

    def __init__(self, make: Callable[[Any], Sample]) -> None:
        self._make = make

    def __getitems__(self, keys: Sequence[Any]) -> list[Sample] | UserError:
        try:
            return [self._make(key) for key in keys]
        except UserError as error:
            return error


def _collate(samples: list[Sample] | UserError) -> Batch | str:
    return str(samples) if isinstance(samples, UserError) else Batch.from_samples(samples)


def _batches(
    samples: _Samples, sampler: Iterable[list[Any]], *, workers: int, pin_memory: bool
) -> Generator[Batch, None, None]:
    """Batches in the sampler's order; closing the generator ends the workers."""
    if workers > 0:
        # Before the fork: the children inherit an OpenCV without a thread pool to wait for.
        cv2.setNumThreads(0)
    loader = DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=prepare_worker if workers > 0 else None,
        prefetch_factor=PREFETCHED_BATCHES if workers > 0 else None,
        multiprocessing_context=start_method() if workers > 0 else None,
        generator=torch.Generator(),  # leaves the global one, and so a run's dropout, alone
    )
    batches: Any = start_workers(loader) if workers > 0 else iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, str):
                end_workers(batches)  # the traceback of what is raised holds the iterator
                raise UserError(batch)
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        # Tensors come over a connection to the worker, and on a GPU's machine through a thread.
        raise lost_worker(error) or ended_worker(batches) or error from None
