"""A run that is stopped and resumed is, to the bit, the run that was not stopped."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from tests.faults.tiny import FORWARDS, at_forward, check_same_run, reference, resume, start
from tests.faults.trial import Property

PROPERTY = "1 Exact resume"

VARIANTS: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("training.precision=bf16",),
    "plateau": ("training.schedule={type: plateau, patience: 0, factor: 0.5}",),
    "mixed_images": (
        "data.mosaic={p: 0.7, off_for_last: 3}",
        "data.mixup={p: 0.5, off_for_last: 2}",
        "data.multi_scale={min: 32, max: 96, step: 32, every: 2, until_step: 6}",
        "data.sampling=repeat_factor",
        "data.repeat_factor_threshold=0.5",
    ),
}


def stop_and_resume(
    seed: int, folder: Path, *, variant: str, pairs: Sequence[tuple[int, int]] = ((0, 0),)
) -> None:
    """One or two stops at random forward passes: in a step, between two, or in an evaluation.

    ``pairs`` are numbers of workers before and after the first stop; the seed chooses.
    """
    workers = pairs[seed % len(pairs)]
    generator = random.Random(f"{variant} {seed}")
    settings = VARIANTS[variant]
    whole = reference(folder, variant, settings)
    run = folder / variant
    places = sorted(generator.sample(range(1, FORWARDS + 1), 1 + seed % 2))
    signals = [generator.choice([signal.SIGTERM, signal.SIGINT]) for _ in places]
    began, done = False, 0
    for place, number in zip(places, signals, strict=True):
        with at_forward(place - done, lambda number=number: signal.raise_signal(number)):
            more = f"data.workers={workers[began]}"
            code = resume(run, more) if began else start(run, *settings, more)
        if code == 0:  # in its last forward pass, or moved past it by what was done again before
            assert began or place == FORWARDS, "the signal was not obeyed"
            break
        assert code == 128 + number, f"exit code {code} after {number!r}"
        began, done = True, place - 1
        torch.manual_seed(generator.getrandbits(30))  # a new process has other random numbers
    assert resume(run, f"data.workers={workers[1]}") == 0  # or "finished already"
    check_same_run(whole, run)


_SAME = "losses, weights, EMA, optimizer, schedule and best as if never stopped"
_OTHER_WORKERS = ((0, 2), (1, 0), (2, 1), (4, 2))
TRIALS = [
    Property(
        partial(stop_and_resume, **settings),
        name=f"resume_{name}",
        checked=checked,
        full=20,
        quick=1,
    )
    for name, settings, checked in (
        ("fp32", {"variant": "fp32"}, f"stopped at random forward passes, fp32: {_SAME}"),
        ("bf16", {"variant": "bf16"}, f"the same in bf16: {_SAME}"),
        (
            "with_other_workers",
            {"variant": "fp32", "pairs": _OTHER_WORKERS},
            "the same with another number of workers after the stop",
        ),
        (
            "plateau",
            {"variant": "plateau"},
            "the same with the schedule that follows the monitored figure",
        ),
        (
            "mixed_images",
            {"variant": "mixed_images", "pairs": ((0, 0), (0, 1), (0, 2))},
            "the same with mosaic, mixup, several sizes and repeated images",
        ),
    )
]
