"""Errors of a GPU's memory, raised by hand wherever a training may meet them."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

import main as training
from tests.train.toys import ToyBatches, ToyEvaluator, ToyLoss, ToyNet, at, quickstart, trainer
from yolo.detection import postprocess
from yolo.errors import UserError
from yolo.train import learner as learners
from yolo.train.checkpoint import load_checkpoint
from yolo.train.learner import Learner
from yolo.train.optimizers import adam
from yolo.train.trainer import Trainer

STEP = 2
"""So many steps go well, of one micro-batch each."""

QUIET: dict[str, Any] = {"evaluate_every": 100, "checkpoint_every": 100}
OF_STEP = "out of memory on cpu: make the micro-batch or the images smaller"
OF_EVALUATION = "out of memory on cpu: make the batches of the evaluation smaller"


def fail(*_: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


class Greedy(ToyNet):
    """Fails in the third step, forward or backward."""

    def __init__(self, *, backward: bool) -> None:
        super().__init__()
        self.backward, self.calls = backward, 0
        self.kept: weakref.ref[Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        x = self.conv(images.float() / 255)
        if self.calls == STEP + 1:
            self.kept = weakref.ref(x)
            x.register_hook(fail) if self.backward else fail()
        return self.out(self.between(x).relu().mean((2, 3)))


class GreedyLoss(ToyLoss):
    def __init__(self) -> None:
        super().__init__(lambda terms, call: fail() if call == STEP + 1 else terms)


def greedy_update() -> dict[str, Any]:
    model = ToyNet()
    optimizer = adam(model, learning_rate=0.01)
    step = optimizer.step
    mock = Mock(side_effect=lambda: fail() if mock.call_count > STEP else step())
    optimizer.step = mock
    return {"model": model, "optimizer": optimizer}


@pytest.mark.parametrize(
    ("parts", "message", "saved"),
    [
        (lambda: {"batches": ToyBatches(micro_batches=1, before=at(STEP, 0, fail))}, OF_STEP, STEP),
        (lambda: {"model": Greedy(backward=False)}, OF_STEP, STEP),
        (lambda: {"loss": GreedyLoss()}, OF_STEP, STEP),
        (lambda: {"model": Greedy(backward=True)}, OF_STEP, STEP),
        (greedy_update, OF_STEP, None),  # half of the weights may be new
        (
            lambda: {"evaluator": ToyEvaluator(before=fail), "evaluate_every": STEP},
            OF_EVALUATION,
            STEP,
        ),
    ],
    ids=["page-locked memory", "forward", "loss", "backward", "update", "evaluation"],
)
def test_it_is_a_sentence_and_the_whole_steps_are_kept(
    parts: Callable[[], dict[str, Any]], message: str, saved: int | None, tmp_path: Path
) -> None:
    batches = ToyBatches(micro_batches=1)
    run = trainer(tmp_path, **{"batches": batches, **QUIET, **parts()})
    with pytest.raises(UserError, match=message):
        run.fit()
    assert run.batches.closed == 1 and run.log.closed
    assert (tmp_path / "last.pt").exists() == (saved is not None)
    if saved is not None:
        assert load_checkpoint(tmp_path / "last.pt")["progress"]["step"] == saved


def test_what_the_step_computed_is_let_go_before_the_checkpoint_is_written(
    tmp_path: Path, monkeypatch
) -> None:
    """It fills the memory, and the traceback would hold it."""
    model, alive = Greedy(backward=False), []
    write = Trainer._write

    def note(run: Trainer, state: dict[str, Any]) -> None:
        assert model.kept is not None
        alive.append(model.kept() is not None)
        write(run, state)

    monkeypatch.setattr(Trainer, "_write", note)
    with pytest.raises(UserError, match=OF_STEP):
        trainer(tmp_path, model=model, batches=ToyBatches(micro_batches=1), **QUIET).fit()
    assert alive == [False]


def test_the_suppression_and_the_averages(tmp_path: Path, monkeypatch, capsys) -> None:
    """Beside the trained network there is a copy of it, which may be the one that does not fit."""
    argv = quickstart(tmp_path, training={"steps": 2})
    with monkeypatch.context() as patch:
        patch.setattr(learners, "AveragedModel", fail)
        assert training.main([*argv, "--name=begun"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: out of memory on cpu: make training.micro_batch_size or data.")
    with monkeypatch.context() as patch:
        patch.setattr(postprocess, "nms", fail)
        assert training.main([*argv, "--name=scored"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: out of memory on cpu: make evaluation.batch_size smaller; --res")
    assert load_checkpoint(tmp_path / "scored" / "last.pt")["progress"]["step"] == 2


def test_a_run_that_does_not_fit_when_it_goes_on_is_not_taken_for_another(
    tmp_path: Path, monkeypatch
) -> None:
    trainer(tmp_path, steps=1).fit()
    monkeypatch.setattr(Learner, "load_state_dict", fail)
    with pytest.raises(UserError, match=OF_STEP):
        trainer(tmp_path, resuming=True)
