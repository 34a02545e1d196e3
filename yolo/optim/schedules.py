"""Schedules of the learning rate: pure functions from the step to a factor of the base rate.

A step is an optimizer step, counted from 0; the trainer sets ``rate = base rate * factor(step)``
before it. Nothing is remembered between steps, so a resumed run goes on exactly.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]

WARMUP_POWER = 4
"""Darknet's default ``power`` for ``burn_in`` (``get_current_rate`` in network.c)."""


def step_schedule(
    *, milestones: Sequence[int], factors: Sequence[float], warmup_steps: int = 0
) -> Schedule:
    """A constant between milestones, Darknet's ``policy=steps``.

    Args:
        milestones: ascending steps; each is the first step of its new factor.
        factors: of the base rate (not of the factor before): one ahead of the first milestone, one
            from each milestone on.
        warmup_steps: see ``warmup``.
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

    Args:
        t_0: steps in the first cycle.
        t_mult: each cycle is this many times as long as the one before.
        eta_min_ratio: the lowest rate over the base rate, approached at a cycle's end.
        warmup_steps: see ``warmup``. The cosine runs on beneath it, so restarts stay at t_0,
            t_0 + t_0 * t_mult, ...
    """
    assert t_0 > 0 and t_mult >= 1, "cycles have a length and do not shrink"

    def factor(step: int) -> float:
        position, length = _place_in_cycle(step, t_0, t_mult)
        cosine = (1 + math.cos(math.pi * position / length)) / 2
        annealed = eta_min_ratio + (1 - eta_min_ratio) * cosine
        return annealed * warmup(step, warmup_steps)

    return factor


def warmup(step: int, warmup_steps: int) -> float:
    """Rise to 1 by the fourth power over the first steps; multiplied onto a schedule.

    Darknet begins with a rate of 0; here the step that is under way counts as done, so the first
    one learns too, and step ``warmup_steps - 1`` reaches 1.
    """
    if step >= warmup_steps:
        return 1.0
    return ((step + 1) / warmup_steps) ** WARMUP_POWER


def _place_in_cycle(step: int, t_0: int, t_mult: int) -> tuple[int, int]:
    """Steps since the last restart, and the length of its cycle; in integers, hence exact."""
    if t_mult == 1:
        return step % t_0, t_0
    start, length = 0, t_0
    while step >= start + length:
        start += length
        length *= t_mult
    return step - start, length
