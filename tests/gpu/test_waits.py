"""A training step lets the host run ahead of the GPU, but for one question."""

from collections.abc import Iterator

import pytest
import torch

from tests.gpu.device import DEVICE, IS_CUDA
from tests.gpu.learners import GENERATIONS, IMAGES, make_batch, make_learner
from yolo.train.distributed import Ranks
from yolo.train.precision import Precision

pytestmark = pytest.mark.gpu


def set_waits(mode: str) -> None:
    """What becomes of a call that waits for the GPU: ``default`` or ``error``."""
    if IS_CUDA:
        torch.cuda.set_sync_debug_mode(mode)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """The answers that a step has waited for: whether all numbers are finite."""
    answers: list[bool] = []

    def any_(self: Ranks, flag: torch.Tensor) -> bool:
        mode = torch.cuda.get_sync_debug_mode() if IS_CUDA else 0
        set_waits("default")
        answers.append(bool(flag))
        set_waits("error" if mode else "default")
        return answers[-1]

    monkeypatch.setattr(Ranks, "any", any_)
    yield answers
    set_waits("default")


@pytest.mark.parametrize("form", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", GENERATIONS)
def test_forward_loss_backward_and_update_wait_once(name: str, form: str, asked: list) -> None:
    case = GENERATIONS[name]
    learner = make_learner(case, Precision(form))
    if form == "fp16":  # a scale so small that no step is given up
        learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 8.0})
    halves = [make_batch(case, range(4)), make_batch(case, range(4, IMAGES))]
    if IS_CUDA:
        halves = [half.pin_memory() for half in halves]  # as the loader does
    learner.step(0, iter(halves), 2)  # makes the optimizer's state, and its waits count for nothing
    asked.clear()
    set_waits("error")
    result = learner.step(1, iter(halves), 2)
    set_waits("default")
    assert asked == [False] and not result.faults
    assert result.terms.keys() and result.counts.keys()


@pytest.mark.skipif(not IS_CUDA, reason="nothing waits for a CPU")
def test_a_wait_would_be_noticed() -> None:
    set_waits("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            torch.zeros(1, device=DEVICE).item()
    finally:
        set_waits("default")
