"""How often a training step reads a value on the host: on a GPU each time waits for the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.detectors import ONE_RANK
from tests.train.toys import ToyBatches, ToyNet, toy_accuracy, toy_batch, trainer
from yolo.train.distributed import Ranks
from yolo.train.failures import StepInputs
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
        of_labels, of_the_average = 2, 1  # the loader's truth; how often was averaged
        assert len(reads.seen) == 1 + of_labels + of_the_average, (precision, reads.seen)


class NoCopyToTheDevice(TorchDispatchMode):
    """Fails where a tensor of the host is copied to a pretended device: that would wait for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        place_of_source = {"_to_copy": 0, "copy_": 1}.get(func.overloadpacket.__name__)
        if place_of_source is not None and result.is_meta:
            assert args[place_of_source].is_meta, func
        return result


def test_an_update_copies_nothing_to_its_device(tmp_path: Path, monkeypatch) -> None:
    """Norm, clipping, optimizer, average and statistics, on tensors without numbers."""
    monkeypatch.setattr(Ranks, "any", lambda ranks, flag: False)  # the question that is waited for
    model = ToyNet().to("meta")
    learner = trainer(
        tmp_path,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, foreach=True),
        gradient_clip=1.0,
        ranks=replace(ONE_RANK, device=torch.device("meta")),
    ).learner
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    inputs = StepInputs()
    for _ in range(2):
        inputs.add(toy_batch(0, range(2)), {"xy": torch.empty((), device="meta")})
    with NoCopyToTheDevice():
        learner._update(0, inputs, {})
        learner._update(1, inputs, {})
        with pytest.raises(AssertionError):
            learner.ema.n_averaged.to("meta")
    assert learner.ema.n_averaged == 2


def test_the_number_of_averages_lies_on_the_host(tmp_path: Path) -> None:
    learner = trainer(tmp_path, model=None).learner
    assert learner.ema is not None
    learner.load_state_dict(learner.state_dict())
    assert learner.ema.n_averaged.device.type == "cpu"
