"""What the stages of a preflight share, and what each of them finds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup

from yolo.apps.preflight.trial_run import TrialRun
from yolo.config import Config, Resolved
from yolo.data.formats.detection import DetectionDataset
from yolo.factory.data import Split
from yolo.train.distributed import Ranks

SAMPLE_STREAM = 2  # sets the draw of a preflight's samples apart from the other uses of the seed
T = TypeVar("T")


@dataclass(kw_only=True)
class Preflight:
    """The config, and what the stages have opened for those after them."""

    resolved: Resolved  # the stage on anchors puts numbers in place of ``anchors: auto``
    ranks: Ranks  # this process, alone on its device
    datasets: dict[Split, DetectionDataset] = field(default_factory=dict)  # train and val
    trial: TrialRun | None = None  # built by the stage that overfits one batch

    @property
    def config(self) -> Config:
        config = self.resolved.config
        assert isinstance(config, Config)
        return config

    def shuffled(self, length: int) -> np.ndarray:
        """The numbers below ``length`` in an order that the config's seed decides."""
        seed = np.random.SeedSequence((self.config.seed, SAMPLE_STREAM))
        return np.random.default_rng(seed).permutation(length)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage found."""

    summary: str  # a line without a full stop
    fault: str | None = None  # the sentence on what would spoil the run
    warnings: Sequence[str] = ()  # sentences on what is worth a look
    lines: Sequence[str] = ()  # more for the terminal
    figures: Mapping[str, Any] = field(default_factory=dict)  # more for the json
    blocks: Sequence[Markup] = ()  # more for the page


def within(seconds: float, items: Iterable[T]) -> Iterator[T]:
    """The items, one at least, until the time is up."""
    end = time.perf_counter() + seconds
    for item in items:
        yield item
        if time.perf_counter() > end:
            return
