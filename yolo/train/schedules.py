"""Schedules of the learning rate: functions from the step to a factor of the base rate.

A step is an optimizer step, counted from 0; the trainer sets ``rate = base rate * factor(step)``
before it. All but ``Plateau`` are pure: nothing is remembered between steps, so a resumed run goes
on exactly. ``warmup_steps`` is that of ``warmup``, which is multiplied onto the schedule.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Schedule = Callable[[int], float]


def step_schedule(
    *, milestones: Sequence[int], factors: Sequence[float], warmup_steps: int = 0
) -> Schedule:
    """A constant between milestones, Darknet's ``policy=steps``.

    The factors are of the base rate (not of the factor before): one before the first milestone, and
    one from each milestone on.
    """
    assert len(factors) == len(milestones) + 1, "one factor more than milestones"
    assert list(milestones) == sorted(set(milestones)), "milestones ascend"

    def factor(step: int) -> float:
        return factors[bisect_right(milestones, step)] * warmup(step, warmup_steps)

    return factor


def cosine_restarts(
    *, t_0: int, t_mult: int = 1, eta_min_ratio: float = 0.0, warmup_steps: int = 0
) -> Schedule:
    """Cosine annealing with warm restarts: SGDR (https://arxiv.org/abs/1608.03983), equation 5.

    The cosine runs on beneath the warm-up, so restarts stay where they are.

    Args:
        t_0: steps in the first cycle.
        t_mult: each cycle is this many times as long as the one before.
        eta_min_ratio: the lowest rate over the base rate, approached at a cycle's end.
    """
    assert t_0 > 0 and t_mult >= 1, "cycles have a length and do not shrink"

    def factor(step: int) -> float:
        position, length = step % t_0 if t_mult == 1 else step, t_0  # in integers, hence exact
        while position >= length:
            position -= length
            length *= t_mult
        cosine = (1 + math.cos(math.pi * position / length)) / 2
        annealed = eta_min_ratio + (1 - eta_min_ratio) * cosine
        return annealed * warmup(step, warmup_steps)

    return factor


def one_cycle(
    *,
    steps: int,
    warm_share: float,
    div: float,
    final_div: float,
    shape: Literal["linear", "cosine"],
) -> Schedule:
    """The 1cycle policy (https://arxiv.org/abs/1708.07120), as PyTorch's ``OneCycleLR`` has it.

    Args:
        steps: of the whole training; the last one, ``steps - 1``, has the lowest rate exactly.
        warm_share: share of the steps over which the rate rises to the base rate, at once where
            that is one step or less.
        div: the base rate over the first one.
        final_div: the first rate over the last one.
    """
    assert steps > 0 and 0 <= warm_share < 1 and div >= 1 and final_div >= 1
    first, last = 1 / div, 1 / (div * final_div)
    peak_step = max(warm_share * steps - 1, 0.0)

    def between(start: float, end: float, place: float) -> float:
        if shape == "cosine":  # from 0 to 1, level at both ends
            place = (1 - math.cos(math.pi * place)) / 2
        return _between(start, end, place)

    def factor(step: int) -> float:
        if step < peak_step:
            return between(first, 1.0, step / peak_step)
        fall_steps = steps - 1 - peak_step
        place = (step - peak_step) / fall_steps if fall_steps > 0 else 0.0  # one step: no fall
        return between(1.0, last, min(place, 1.0))

    return factor


def linear(*, steps: int, end_factor: float, warmup_steps: int = 0) -> Schedule:
    """A straight line, beneath the warm-up, from 1 at step 0 to ``end_factor`` at ``steps - 1``."""
    assert steps > 0

    def factor(step: int) -> float:
        place = min(step / max(steps - 1, 1), 1.0)
        return _between(1.0, end_factor, place) * warmup(step, warmup_steps)

    return factor


@dataclass(kw_only=True, eq=False, repr=False)
class Plateau:
    """A factor that falls where the monitored figure no longer rises.

    The rule is that of PyTorch's ``ReduceLROnPlateau`` with ``mode="max"``,
    ``threshold_mode="abs"`` and no cooldown. The threshold is absolute, since the figures lie
    between 0 and 1, and a share of a figure near 0 would let pass any noise.
    """

    factor: float  # what the rate is multiplied with each time
    patience: int  # evaluations without a better figure that are let pass; the next one counts
    threshold: float  # by more than this a figure has to be above the best one; NaN is not
    min_factor: float  # the lowest rate over the base rate
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        assert 0 < self.factor < 1 and 0 <= self.min_factor <= 1
        self._factor, self._best, self._missed = 1.0, -math.inf, 0

    def __call__(self, step: int) -> float:
        return self._factor * warmup(step, self.warmup_steps)

    def note(self, figure: float) -> None:
        """Take account of one more evaluation, with the same figure on every rank."""
        if figure > self._best + self.threshold:
            self._best, self._missed = figure, 0
            return
        self._missed += 1
        if self._missed > self.patience:
            self._factor = max(self._factor * self.factor, self.min_factor)
            self._missed = 0

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self._factor, "best": self._best, "missed": self._missed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._factor, self._best = float(state["factor"]), float(state["best"])
        self._missed = int(state["missed"])


def warmup(step: int, warmup_steps: int) -> float:
    """Rise to 1 by the fourth power, which step ``warmup_steps - 1`` reaches.

    That is Darknet's default ``power`` for ``burn_in`` (``get_current_rate`` in network.c), which
    begins with a rate of 0; here the step under way counts, so the first one learns too.
    """
    if step >= warmup_steps:
        return 1.0
    return ((step + 1) / warmup_steps) ** 4


def _between(start: float, end: float, place: float) -> float:
    """From ``start`` (place 0) to ``end`` (place 1), exact at both."""
    return (1 - place) * start + place * end
