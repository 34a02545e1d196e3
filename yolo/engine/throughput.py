"""What happened since the last report: loss, speed, waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from yolo.engine.distributed import Ranks
from yolo.records import Batch


class Window:
    """Adds up the steps between two reports; nothing waits for the device before ``figures``."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0
        self._steps = 0
        self._terms: dict[str, Tensor] = {}

    def fetch(self, stream: Iterator[Batch], count: int) -> Iterator[Batch]:
        """The next ``count`` batches; the time until each is there counts as waiting."""
        for _ in range(count):
            start = time.perf_counter()
            batch = next(stream)
            self._waited += time.perf_counter() - start
            yield batch

    def add(self, terms: dict[str, Tensor], images: int) -> None:
        """Count a step's images, and its loss unless ``terms`` is empty: a skipped step."""
        self._images += images
        if terms:
            add_terms(self._terms, terms)
            self._steps += 1

    def figures(self, ranks: Ranks) -> dict[str, float]:
        """Mean loss terms over the steps, summed over the ranks, and the speed."""
        terms = {}
        if self._steps:
            values = ranks.sum(torch.stack(list(self._terms.values())).double()) / self._steps
            terms = dict(zip(self._terms, values.tolist(), strict=True))
        seconds = time.perf_counter() - self._start
        return {
            "loss": sum(terms.values()) if terms else float("nan"),
            **{f"loss/{name}": value for name, value in terms.items()},
            "images_per_second": self._images / seconds,
            "data_wait_share": self._waited / seconds,
        }


def add_terms(totals: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add loss terms to totals of the same names."""
    for name, term in terms.items():
        totals[name] = totals[name] + term if name in totals else term
