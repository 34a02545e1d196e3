"""What happened since the last report: loss, accuracy, speed, waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from yolo.records import Batch
from yolo.train.distributed import Ranks


class Window:
    """Adds up the steps between two reports; nothing waits for the device before ``figures``."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0
        self._steps = 0
        self._terms: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def fetch(self, stream: Iterator[Batch], count: int) -> Iterator[Batch]:
        """The next ``count`` batches; the time until each is there counts as waiting."""
        for _ in range(count):
            start = time.perf_counter()
            batch = next(stream)
            self._waited += time.perf_counter() - start
            yield batch

    def add(self, terms: dict[str, Tensor], counts: dict[str, Tensor], images: int) -> None:
        """Count a step's images, and what it learnt unless ``terms`` is empty: a skipped step.

        Args:
            terms: of the loss, scalars.
            counts: hits and attempts by name, (2,) each.
            images: of all ranks.
        """
        self._images += images
        if terms:
            add_terms(self._terms, terms)
            add_terms(self._counts, counts)
            self._steps += 1

    def figures(self, ranks: Ranks) -> dict[str, float]:
        """Mean loss terms over the steps, summed over the ranks, the accuracy and the speed.

        An accuracy without a single attempt on any rank is left out.
        """
        terms, counts = self._summed(ranks) if self._steps else ({}, {})
        seconds = time.perf_counter() - self._start
        return {
            "loss": sum(terms.values()) if terms else float("nan"),
            **{f"loss/{name}": value for name, value in terms.items()},
            **{f"accuracy/{name}": hits / of for name, (hits, of) in counts.items() if of},
            "images_per_second": self._images / seconds,
            "data_wait_share": self._waited / seconds,
        }

    def _summed(self, ranks: Ranks) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Loss terms per step and counts, over all ranks, in one exchange."""
        flat = [*self._terms.values(), *self._counts.values()]
        values = ranks.sum(torch.cat([value.double().flatten() for value in flat])).tolist()
        terms, pairs = values[: len(self._terms)], values[len(self._terms) :]
        return (
            {name: term / self._steps for name, term in zip(self._terms, terms, strict=True)},
            {name: pairs[2 * i : 2 * i + 2] for i, name in enumerate(self._counts)},
        )


def add_terms(totals: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add loss terms, or counts, to totals of the same names."""
    for name, term in terms.items():
        totals[name] = totals[name] + term if name in totals else term
