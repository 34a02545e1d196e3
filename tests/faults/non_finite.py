"""A number that is none: noticed in its step on all ranks, named, and it changes nothing."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tests.faults.tiny import check_told, fork, fork_ranks, last_lines, start
from tests.faults.trial import Property, wait_for
from tests.train.toys import differences
from yolo.detection.losses.yolov3 import YOLOv3Loss
from yolo.records import Batch
from yolo.train.checkpoint import load_checkpoint
from yolo.train.failures import find_nonfinite
from yolo.train.learner import Learner

PROPERTY = "9 Non-finite"

_ALL = "fp32 and fp16 with its scaler, 1 and 2 ranks"
KINDS = {
    "activation": (
        "encoder",
        f"NaN or Inf out of a layer, {_ALL}: named, weights, EMA and optimizer as before",
    ),
    "label": ("the boxes of image", "the same in a box"),
    "term": ("box", "the same in a term of the loss"),
    "gradient": ("gradient", "the same in the gradient alone"),
}
"""What the line about a skipped step must hold, and what is checked."""

STEPS = 5


@contextmanager
def spoiled(kind: str, value: float, is_bad: Callable[[], bool]) -> Iterator[None]:
    """Put a value that is no number into every forward pass for which ``is_bad`` says so."""
    compute, take = YOLOv3Loss.forward, Learner.step

    def label(batch: Batch) -> Batch:
        if kind != "label" or not is_bad() or not len(batch.targets):
            return batch
        boxes = batch.targets.boxes_cxcywh_norm.clone()
        boxes[0, 2] = value
        return replace(
            batch, targets=replace(batch.targets, boxes_cxcywh_norm=boxes, is_finite=None)
        )

    def step(self: Learner, number: int, batches: Iterator[Batch], *rest: Any, **named: Any) -> Any:
        return take(self, number, map(label, batches), *rest, **named)

    def loss(
        self: YOLOv3Loss, raw: Any, targets: Any, *rest: Any, **named: Any
    ) -> dict[str, Tensor]:
        terms = compute(self, raw, targets, *rest, **named)
        if is_bad() and kind == "term":
            terms["box"] = terms["box"] + value
        return terms

    def encoder(module: Any, inputs: Any, outputs: Any) -> Any:
        if module.__class__.__name__ != "DarknetTiny" or not module.training or not is_bad():
            return None
        if kind == "activation":
            return tuple(output * value for output in outputs)
        if kind == "gradient" and outputs[-1].requires_grad:
            outputs[-1].register_hook(lambda gradient: gradient * value)
        return None

    handle = torch.nn.modules.module.register_module_forward_hook(encoder)
    try:
        with (
            mock.patch.object(YOLOv3Loss, "forward", loss),
            mock.patch.object(Learner, "step", step),
        ):
            yield
    finally:
        handle.remove()


@contextmanager
def watched(bad_steps: set[int], guilty: bool) -> Iterator[Callable[[], bool]]:
    """Check that bad steps leave the whole state alone; yields whether one is under way here."""
    take = Learner.step
    now = {"bad": False}

    def step(self: Learner, number: int, *rest: Any, **named: Any) -> Any:
        now["bad"] = guilty and number in bad_steps
        before = _state(self)
        result = take(self, number, *rest, **named)
        now["bad"] = False
        if number in bad_steps:
            assert result is not None and result.faults, f"step {number}: not noticed"
            found = differences(before, _state(self))
            assert not found, f"step {number} changed {found[:3]}"
        elif result is not None and not result.faults:
            assert differences(before["model"], _state(self)["model"]), "nothing was learnt"
        return result

    with mock.patch.object(Learner, "step", step):
        yield lambda: now["bad"]


def _state(learner: Learner) -> dict[str, Any]:
    """Copies of weights, statistics, averages and the optimizer's state."""
    state = learner.state_dict()
    optimizer = state["optimizer"]["state"]
    return deepcopy({"model": state["model"], "ema": state["ema"], "optimizer": optimizer})


def _train(
    seed: int, folder: Path, kind: str, bad: set[int], *more: str, guilty: bool = True
) -> int:
    value = float("nan") if seed % 2 else float("inf")
    precision = "fp16" if seed // 2 % 2 else "fp32"
    settings = [f"training.precision={precision}", f"training.steps={STEPS}", *more]
    with watched(bad, guilty) as is_bad, spoiled(kind, value, is_bad):
        return start(folder / "run", *settings)


def bad_step(seed: int, folder: Path, *, kind: str) -> None:
    """In one process or, for every other pair of seeds, on one of two ranks."""
    generator = random.Random(f"{kind} {seed}")
    bad = {generator.randrange(STEPS)}
    if seed // 4 % 2:
        guilty = generator.randrange(2)

        def work() -> int:
            mine = int(os.environ["RANK"]) == guilty
            return _train(seed, folder, kind, bad, guilty=mine)

        processes, outputs = fork_ranks(work, folder)
    else:
        outputs = [folder / "run.txt"]
        processes = [fork(lambda: _train(seed, folder, kind, bad), outputs[0])]
    codes = [wait_for(process, 50) for process in processes]
    assert not any(codes) and None not in codes, f"{codes}: {[*map(last_lines, outputs)]}"
    step = next(iter(bad))
    told = [
        line
        for line in outputs[0].read_text().splitlines()
        if line.startswith(f"step {step}: ") and "not finite" in line
    ]
    assert told, f"step {step} is not told: {last_lines(outputs[0], 20)}"
    assert KINDS[kind][0] in told[0] and "image" in told[0], told[0]
    assert _finite(folder / "run" / "last.pt")["progress"]["step"] == STEPS
    if (folder / "run" / "best.pt").exists():
        _finite(folder / "run" / "best.pt")


def _finite(path: Path) -> dict[str, Any]:
    saved = load_checkpoint(path)
    assert not find_nonfinite({"model": saved["model"], "ema": saved["ema"]}), path.name
    return saved


def too_many_in_a_row(seed: int, folder: Path) -> None:
    """Training.max_skipped such steps: code 1, what was saved is finite."""
    output, bad = folder / "run.txt", set(range(1 + seed % 2, STEPS + 5))
    more = ("training.max_skipped=2", "evaluation.every=100")
    kind = sorted(KINDS)[seed // 2 % len(KINDS)]
    process = fork(lambda: _train(4 * seed + 1, folder, kind, bad, *more), output)
    assert wait_for(process, 50) == 1, last_lines(output)
    check_told(output, "2 steps in a row were not finite")
    assert _finite(folder / "run" / "last.pt")["progress"]["step"] == min(bad) + 2


TRIALS = [
    *(
        Property(
            partial(bad_step, kind=kind), name=f"bad_{kind}", checked=checked, full=16, quick=1
        )
        for kind, (_, checked) in KINDS.items()
    ),
    Property(too_many_in_a_row, full=8, quick=1),
]
