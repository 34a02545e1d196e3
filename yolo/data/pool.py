"""Decoded images that are likely to be wanted again soon."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from yolo.records import Sample


class DecodedPool:
    """Keeps what was loaded last; only a cache: what is no longer there is loaded again.

    Nobody may change a sample that comes out: the same one may come out again.

    Args:
        load: index -> sample.
        limit_bytes: the most that the kept images take; a larger one is not kept at all.
    """

    def __init__(self, load: Callable[[int], Sample], limit_bytes: int) -> None:
        self._load = load
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        self._bytes = 0

    def load(self, index: int) -> Sample:
        """The sample at an index, decoded now or before."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        sample = self._load(index)
        if sample.image.nbytes <= self._limit_bytes:
            self._keep(index, sample)
        return sample

    def _keep(self, index: int, sample: Sample) -> None:
        self._kept[index] = sample
        self._bytes += sample.image.nbytes
        while self._bytes > self._limit_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.image.nbytes
