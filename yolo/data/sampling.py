"""Which sample comes when, and how large: pure functions of the seed, for any number of ranks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, pairwise

import numpy as np

from yolo.data.annotations import Annotations

BLOCK = 16
"""Places of the stream whose images are mixed among each other: a worker that makes a micro-batch
of so many decodes each image once."""


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which training sample to make.

    Epoch and place are the augmentation's seed, so that an image that an epoch repeats gets another
    variant each time.
    """

    index: int  # of the image in the data set
    epoch: int
    place: int  # in the epoch's order, from 0
    step: int  # the optimizer step that it is for
    size_px: int  # side of the square image to make
    neighbours: tuple[int, ...] = ()  # indices of images to mix it with, from its block


class SampleOrder:
    """The endless stream of samples: epoch after epoch, each in an order of its own.

    Args:
        length, seed: number of images in the data set; seed of the run.
        repeat_factors: float (length,), at least 1: how often an image comes per epoch on average.
            The fraction is rounded up or down at random in each epoch, so that epochs differ in
            length. None: once each.
    """

    def __init__(self, *, length: int, seed: int, repeat_factors: np.ndarray | None = None) -> None:
        assert length > 0
        assert repeat_factors is None or repeat_factors.shape == (length,)
        self._length = length
        self._seed = seed
        self._repeat_factors = repeat_factors
        self._starts = [0]  # position of each epoch's first sample, as far as it was asked for
        self._orders: dict[int, np.ndarray] = {}

    def at(self, position: int) -> tuple[int, int, int]:
        """Of a position of the stream, 0 or more: its epoch, its place there, and the index."""
        if self._repeat_factors is None:
            epoch, place = divmod(position, self._length)
        else:
            while self._starts[-1] <= position:
                self._starts.append(self._starts[-1] + len(self.of_epoch(len(self._starts) - 1)))
            epoch = bisect_right(self._starts, position) - 1
            place = position - self._starts[epoch]
        return epoch, place, int(self.of_epoch(epoch)[place])

    def neighbours(self, position: int) -> tuple[int, ...]:
        """The indices, each once, of the other images in a position's block and epoch.

        Only where the block has no other image is it the one at the position itself.
        """
        epoch, place, index = self.at(position)
        low = place - position % BLOCK
        block = self.of_epoch(epoch)[max(0, low) : low + BLOCK]
        others = block[block != index]
        return tuple(dict.fromkeys((others if len(others) else block[:1]).tolist()))

    def of_epoch(self, epoch: int) -> np.ndarray:
        """The indices of an epoch in their order, int64."""
        if epoch not in self._orders:
            if len(self._orders) == 3:  # a batch may span two epochs, or of few images several
                del self._orders[next(iter(self._orders))]
            generator, images = seeded_generator(self._seed, epoch), np.arange(self._length)
            if self._repeat_factors is not None:
                fraction, whole = np.modf(self._repeat_factors)
                repeats = whole.astype(np.int64) + (generator.random(self._length) < fraction)
                images = np.repeat(images, repeats)
            self._orders[epoch] = generator.permutation(images)
        return self._orders[epoch]


def repeat_factors(annotations: Annotations, threshold: float) -> np.ndarray:
    """How often to repeat each image so that rare classes are seen more often, float64 (I,).

    Repeat factor sampling (Gupta et al., "LVIS", 2019): a class in the share f of all images gets
    max(1, sqrt(threshold / f)), an image the largest of its classes. Ignored regions do not
    count; images without boxes get 1.
    """
    owned = ~annotations.ignored
    image, label = annotations.image_index()[owned], annotations.labels[owned].astype(np.int64)
    classes = int(label.max(initial=-1)) + 1
    pairs = np.unique(image * max(classes, 1) + label)  # each class once per image
    image, label = np.divmod(pairs, max(classes, 1))
    share = np.bincount(label, minlength=classes) / max(len(annotations), 1)
    by_class = np.sqrt(threshold / share.clip(min=np.finfo(float).tiny)).clip(min=1.0)
    factors = np.ones(len(annotations))
    np.maximum.at(factors, image, by_class[label])
    return factors


@dataclass(frozen=True, slots=True)
class RandomSizes:
    """Multi-scale training (YOLO9000, section 2): a new side every few steps, for all ranks.

    From ``until_step`` on, where it is not None, the side is ``final_px``.
    """

    sides_px: tuple[int, ...]
    every: int
    seed: int
    until_step: int | None
    final_px: int

    def __call__(self, step: int) -> int:
        if self.until_step is not None and step >= self.until_step:
            return self.final_px
        # (0, 2) sets these draws apart from those of the order and of the transforms
        generator = seeded_generator(self.seed, step // self.every, 0, 2)
        return self.sides_px[generator.integers(len(self.sides_px))]


class StepSampler:
    """The micro-batches of one rank, optimizer step after optimizer step, without an end.

    Step s takes the positions s*B..(s+1)*B-1 of the stream, whatever the number of ranks. The
    ranks get contiguous shares, as even as possible; each is cut into micro-batches.

    Args:
        batch_size: B, images per step over all ranks.
        micro_batch_size: the most images in one micro-batch.
        size_px: optimizer step -> side of the square images.
        mixes_until: the first step whose images are not mixed with others.
    """

    def __init__(
        self,
        *,
        order: SampleOrder,
        batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        size_px: Callable[[int], int],
        mixes_until: int = 0,
    ) -> None:
        assert batch_size >= world_size
        self._order = order
        self._batch_size = batch_size
        self._size_px = size_px
        self._mixes_until = mixes_until
        low, high = (batch_size * place // world_size for place in (rank, rank + 1))
        cuts = [*range(low, high, micro_batch_size), high]
        self._micro_batches = [range(a, b) for a, b in pairwise(cuts)]
        self.micro_batches_per_step = len(self._micro_batches)  # of this rank

    def from_step(self, start: int) -> Iterator[list[SampleKey]]:
        """The micro-batches from the first one of a step on."""
        for step in count(start):
            size_px = self._size_px(step)
            for places in self._micro_batches:
                yield [self._key(step, place, size_px) for place in places]

    def _key(self, step: int, place: int, size_px: int) -> SampleKey:
        position = step * self._batch_size + place
        epoch, place_in_epoch, index = self._order.at(position)
        neighbours = self._order.neighbours(position) if step < self._mixes_until else ()
        return SampleKey(index, epoch, place_in_epoch, step, size_px, neighbours)


def seeded_generator(*seed: int) -> np.random.Generator:
    """Random numbers that are a function of numbers of at least 0."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
