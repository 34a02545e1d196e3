"""Times that can be compared: what is compared takes turns, so that all meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rounds:
    """Seconds of each contestant, round by round."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """The median time of a contestant, in seconds."""
        return statistics.median(self.seconds[name])

    def speedup(self, name: str, over: str) -> float:
        """How many times as fast as another: the median over the rounds of the ratio in each.

        Load that comes and goes with the rounds cancels out.
        """
        pairs = zip(self.seconds[over], self.seconds[name], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)


def take_turns(contestants: Mapping[str, Callable[[], object]], *, rounds: int) -> Rounds:
    """Call each contestant once in every round; the first round warms up and is dropped."""
    assert rounds >= 2
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return Rounds({name: values[1:] for name, values in seconds.items()})


def wait_for(device: torch.device) -> None:
    """Until a GPU has done all that it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
