"""A run that is stopped and resumed is, to the bit, the run that was not stopped."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import torch

from tests.faults.tiny import FORWARDS, at_forward, check_same_run, reference, resume, start

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


def _stop_and_resume(seed: int, folder: Path, variant: str, *, workers: tuple[int, int]) -> None:
    """One or two stops at random forward passes: in a step, between two, or in an evaluation."""
    generator = random.Random(f"{variant} {seed}")
    settings = VARIANTS[variant]
    whole = reference(folder.parent / "shared", variant, *settings)
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


def resume_fp32(seed: int, folder: Path) -> None:
    _stop_and_resume(seed, folder, "fp32", workers=(0, 0))


def resume_bf16(seed: int, folder: Path) -> None:
    _stop_and_resume(seed, folder, "bf16", workers=(0, 0))


def resume_with_other_workers(seed: int, folder: Path) -> None:
    pairs = [(0, 2), (1, 0), (2, 1), (4, 2)]
    _stop_and_resume(seed, folder, "fp32", workers=pairs[seed % len(pairs)])


def resume_plateau(seed: int, folder: Path) -> None:
    _stop_and_resume(seed, folder, "plateau", workers=(0, 0))


def resume_mixed_images(seed: int, folder: Path) -> None:
    _stop_and_resume(seed, folder, "mixed_images", workers=(0, seed % 3))


TRIALS = {
    "resume_fp32": resume_fp32,
    "resume_bf16": resume_bf16,
    "resume_with_other_workers": resume_with_other_workers,
    "resume_plateau": resume_plateau,
    "resume_mixed_images": resume_mixed_images,
}
_SAME = "losses, weights, EMA, optimizer, schedule and best as if never stopped"
CHECKED = {
    "resume_fp32": f"stopped at random forward passes, fp32: {_SAME}",
    "resume_bf16": f"the same in bf16: {_SAME}",
    "resume_with_other_workers": "the same with another number of workers after the stop",
    "resume_plateau": "the same with the schedule that follows the monitored figure",
    "resume_mixed_images": "the same with mosaic, mixup, several sizes and repeated images",
}
FULL = dict.fromkeys(TRIALS, 20)
QUICK = dict.fromkeys(TRIALS, 1)
