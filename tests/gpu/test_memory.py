"""Memory that is used up is told in a sentence and costs no step; and how much is needed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import main as training
from tests.gpu.device import DEVICE, NAME, arguments, only_cuda
from tests.gpu.learners import CASES, IMAGES, make_batch, make_learner
from yolo.config import load_config
from yolo.detection import postprocess
from yolo.factory import training as factory
from yolo.factory.micro_batch import ORIGIN, settle_micro_batch
from yolo.models.detector import Detector
from yolo.models.summary import dry_run
from yolo.train.checkpoint import load_checkpoint

pytestmark = pytest.mark.gpu

STEP = 2
"""So many steps go well."""

STATES_OF_ADAM = 2


def total_bytes() -> int:
    return torch.cuda.get_device_properties(DEVICE).total_memory


@pytest.fixture(autouse=True)
def all_memory_afterwards() -> Iterator[None]:
    yield
    if DEVICE.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
        torch.cuda.empty_cache()


def use_up_memory(*_: object) -> None:
    """A real error, and from now on a GPU has no more memory than was in use."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        left = torch.cuda.memory_reserved(DEVICE) / total_bytes()
        torch.cuda.set_per_process_memory_fraction(left, DEVICE)
    torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)


@pytest.mark.parametrize("place", ["forward", "backward", "evaluation", "suppression"])
def test_out_of_memory_is_a_sentence_and_keeps_the_steps(
    place: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    trained: list[Tensor] = []
    forward = Detector.forward

    def forward_until(model: Detector, images: Tensor) -> list[Tensor]:
        raw = forward(model, images)
        if model.training:
            trained.append(images)
        is_due = len(trained) == (STEP + 1 if model.training else STEP)
        if is_due and place == ("forward" if model.training else "evaluation"):
            use_up_memory()
        if is_due and place == "backward":
            raw[0].register_hook(use_up_memory)
        return raw

    monkeypatch.setattr(Detector, "forward", forward_until)
    if place == "suppression":
        monkeypatch.setattr(postprocess, "nms", use_up_memory)
    every = STEP if place in ("evaluation", "suppression") else 100
    steps, evaluation = {"steps": 4, "checkpoint_every": 100}, {"every": every}
    argv = arguments(tmp_path, training=steps, evaluation=evaluation)
    assert training.main([*argv, "--name=run"]) == 1
    printed = capsys.readouterr()
    sentence = f"error: out of memory on {NAME}: "
    assert printed.err.startswith(sentence) and printed.err.count("\n") == 1, printed.err
    assert f"last.pt: keeps what was learnt until step {STEP}\n" in printed.out, printed.out
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["step"] == STEP


@only_cuda
def test_a_micro_batch_that_fits_is_found_and_trained(tmp_path: Path, monkeypatch, capsys) -> None:
    def settle(*given):
        settled = settle_micro_batch(*given)
        limit(1.3)  # other tensors lie otherwise in the same memory
        return settled

    def limit(times: float) -> None:
        torch.cuda.set_per_process_memory_fraction(times * 1.5e9 / total_bytes(), DEVICE)

    torch.cuda.empty_cache()
    limit(1.0)
    monkeypatch.setattr(factory, "settle_micro_batch", settle)
    argv = arguments(
        tmp_path,
        model={"encoder.width": 1},
        data={"image_size": 320, "train.images": 64},
        training={"batch_size": 64, "micro_batch_size": "auto", "steps": 2},
    )
    assert training.main([*argv, "--name=run"]) == 0
    printed = capsys.readouterr().out
    assert f", {ORIGIN}\n" in printed, printed
    found = load_config(tmp_path / "run" / "config.yaml").config.training.micro_batch_size
    print(f"micro-batch of {found} in 1.5 GB")
    assert 1 < found < 64


@only_cuda
@pytest.mark.parametrize("name", ["darknet53", "mobilenet_v3_large"])
def test_the_forecast_of_a_steps_memory(name: str) -> None:
    """Of fp32: weights, gradient, averages and Adam's two numbers, and what each image keeps."""
    case = CASES[name]
    learner, batch = make_learner(case), make_batch(case)
    summary = dry_run(learner.model, case.size_px)
    copies_of_weights = 1 + 1 + 1 + STATES_OF_ADAM
    forecast = copies_of_weights * summary.weight_bytes + IMAGES * summary.activation_bytes
    step = partial(learner.step, micro_batches=iter([batch] * 3), count=1)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(DEVICE) - 2 * summary.weight_bytes  # weights and averages
    torch.cuda.reset_peak_memory_stats(DEVICE)
    for number in range(3):
        step(number)
    fact = torch.cuda.max_memory_allocated(DEVICE) - before
    print(f"{name}: forecast {forecast / 1e6:,.0f} MB, fact {fact / 1e6:,.0f} MB")
    assert 0.6 < fact / forecast < 2
