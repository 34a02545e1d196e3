"""How often a training step reads a value on the host: on a GPU each time waits for the device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.toys import ToyBatches, toy_accuracy, trainer
from yolo.train.precision import Precision

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "is_nonzero")
"""Operations whose result is a host's value, or has a shape that the host has to know."""


class HostReads(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in READS or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_a_step_waits_once_for_its_device(tmp_path: Path) -> None:
    """Whether the step is finite; all else that is read lies on the host anyway."""
    for precision in ("fp32", "bf16", "fp16"):
        run = trainer(
            tmp_path / precision,
            precision=Precision(precision),
            gradient_clip=1.0,
            accuracy=toy_accuracy,
        )
        batches = ToyBatches(micro_batches=2)
        stream = batches.from_step(0)
        run.learner.step(0, stream, 2)  # what is made once
        with HostReads() as reads:
            result = run.learner.step(1, stream, 2)
        assert result is not None and not result.faults
        of_labels, of_the_average = 2, 2  # the loader's truth; how often was averaged
        assert len(reads.seen) == 1 + of_labels + of_the_average, (precision, reads.seen)


def test_the_number_of_averages_lies_on_the_host(tmp_path: Path) -> None:
    learner = trainer(tmp_path, model=None).learner
    assert learner.ema is not None
    learner.load_state_dict(learner.state_dict())
    assert learner.ema.n_averaged.device.type == "cpu"
