"""Steps whose numbers are none: noticed, named, counted, without a trace in what is learnt."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.detectors import ONE_RANK
from tests.train.toys import (
    ToyBatches,
    ToyEvaluator,
    ToyLoss,
    ToyNet,
    differences,
    fit,
    spoil,
    toy_batch,
    trainer,
)
from yolo.errors import UserError
from yolo.train import failures
from yolo.train.checkpoint import load_checkpoint
from yolo.train.failures import find_nonfinite
from yolo.train.precision import Precision
from yolo.train.trainer import Trainer

QUIET: dict[str, Any] = {"steps": 3, "evaluate_every": 100}
IMAGES_OF_STEP_2 = "image ids 2, 3"  # of the second of its two micro-batches


class Spoiled(ToyNet):
    """Something that is no number in one micro-batch, and again whenever that is looked at."""

    def __init__(self, where: str, value: float = math.nan) -> None:
        super().__init__()
        self.where, self.value, self.calls = where, value, 0
        self.guilty = toy_batch(2, range(2, 4)).images.long().sum()
        self.is_guilty = False
        if where == "output":
            self.conv.register_forward_hook(lambda m, i, out: out * self.factor)
        if where == "masked output":  # neither loss nor gradient show it, the statistics do
            self.between.append(nn.Flatten(0)).append(nn.Unflatten(0, (-1, 6, 6, 6)))
            self.between[0].register_forward_hook(lambda m, i, out: out.nan_to_num())
            self.conv.register_forward_hook(lambda m, i, out: out.detach() * self.factor)
        if where == "gradient":
            self.out.weight.register_hook(lambda gradient: gradient * self.factor)

    @property
    def factor(self) -> float:
        return self.value if self.is_guilty else 1.0

    def forward(self, images):
        self.calls += 1
        self.is_guilty = bool(images.long().sum() == self.guilty)
        return super().forward(images)


def infinite_in_the_sixth(terms: dict[str, Tensor], call: int) -> dict[str, Tensor]:
    return {**terms, "wh": terms["wh"] * (math.inf if call == 6 else 1)}


def state_of(run: Trainer) -> dict[str, Any]:
    """All that a skipped step must leave alone: the rate is that of the step."""
    state = run.learner.state_dict()
    for group in state["optimizer"]["param_groups"]:
        group.pop("lr", None)
    return state


def skip_one(folder: Path, **parts: Any) -> Trainer:
    """Train through the spoiled step."""
    run = fit(folder, **QUIET, **parts)
    assert run.progress.skipped_steps == 1
    return run


@pytest.mark.parametrize(
    ("part", "build", "message"),
    [
        ("model", lambda: Spoiled("output"), "loss xy, wh, from the output of conv"),
        ("model", lambda: Spoiled("output", math.inf), "loss xy, wh, from the output of conv"),
        ("model", lambda: Spoiled("masked output", math.inf), "the output of conv"),
        ("model", lambda: Spoiled("gradient"), "the gradient of out.weight"),
        ("loss", lambda: ToyLoss(infinite_in_the_sixth), "loss wh"),
        ("batches", lambda: ToyBatches(change=spoil(2)), "loss xy, from the boxes of image 0"),
    ],
)
def test_what_is_not_finite_is_named_and_leaves_no_trace(
    tmp_path: Path, part: str, build: Callable, message: str
) -> None:
    """The third step is spoiled: the state stays that of two steps without any fault."""
    spoiled = build()
    masked = isinstance(spoiled, Spoiled) and spoiled.where == "masked output"
    same = Spoiled("masked output", 1.0) if masked else None
    good = fit(tmp_path / "a", **{**QUIET, "steps": 2}, model=same)
    bad = skip_one(tmp_path / "b", **{part: spoiled})
    progress = bad.progress
    assert (progress.step, progress.skipped_in_a_row, progress.scaler_backoffs) == (3, 1, 0)
    step, figures = bad.log.trained[-1]
    assert step == 3 and figures["skipped_steps"] == 1
    ids = "image ids 0, 1" if part == "batches" else IMAGES_OF_STEP_2
    assert f"step 2: skipped, not finite: {message} ({ids})" in bad.log.messages
    assert differences(state_of(good), state_of(bad)) == []
    saved = load_checkpoint(tmp_path / "b" / "last.pt")
    assert find_nonfinite(saved) == [] and saved["progress"]["skipped_steps"] == 1


def test_a_gradient_that_is_not_finite_only_once_is_still_named(tmp_path: Path) -> None:
    class Once(Spoiled):
        factor = property(lambda self: math.nan if self.calls == 6 else 1.0)

    line = "step 2: skipped, not finite: the gradient of out.weight (image ids 0, 1, 2, 3)"
    assert line in skip_one(tmp_path, model=Once("gradient")).log.messages


def test_a_compiled_model_is_not_compiled_anew_to_find_the_layer(tmp_path: Path) -> None:
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    for folder, value in (("a", 1.0), ("b", math.inf)):
        needed = len(compilations)
        run = trainer(tmp_path / folder, **QUIET, model=Spoiled("masked output", value))
        run.learner.model.compile(backend=backend)
        run.fit()
    assert run.progress.skipped_steps == 1 and len(compilations) <= 2 * needed
    line = f"step 2: skipped, not finite: the output of conv ({IMAGES_OF_STEP_2})"
    assert line in run.log.messages


@pytest.mark.parametrize(
    ("where", "message"),
    [("output", f"loss xy, wh ({IMAGES_OF_STEP_2})"), ("gradient", "out.weight (image ids 2, 3)")],
)
def test_a_large_step_keeps_its_first_images_only(
    tmp_path: Path, monkeypatch, where: str, message: str
) -> None:
    """Without the layer's name then, but with the loss, and with the images as suspects."""
    monkeypatch.setattr(failures, "KEPT_BYTES", 1)
    run = skip_one(tmp_path, model=Spoiled(where))
    assert any(text.endswith(message) for text in run.log.messages)


def test_what_a_step_keeps_is_bounded_and_lies_in_no_shared_memory(monkeypatch) -> None:
    batch = toy_batch(0, range(2))
    batch.images.share_memory_()
    monkeypatch.setattr(failures, "KEPT_BYTES", batch.images.nbytes + 1)
    step = failures.StepInputs()
    for _ in range(3):
        step.add(batch, {})
    shapes = [tuple(kept.images.shape) for kept in step.batches]
    assert shapes == [(2, 3, 8, 8), (2, 3, 8, 8), (2, 3, 0, 0)]
    assert not any(kept.images.is_shared() for kept in step.batches[:2])
    assert torch.equal(step.batches[1].images, batch.images)
    assert step.batches[2].images.untyped_storage().nbytes() == 0


@pytest.mark.parametrize(("where", "skipped", "backed_off"), [("output", 1, 0), ("gradient", 0, 1)])
def test_with_the_scaler_only_gradients_lower_the_scale(
    tmp_path: Path, where: str, skipped: int, backed_off: int
) -> None:
    run = trainer(tmp_path, model=Spoiled(where), precision=Precision("fp16"), **QUIET)
    scaler, scale = run.learner.scaler, 8.0  # so small that nothing else overflows
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale})
    progress = run.fit()
    assert (progress.skipped_steps, progress.scaler_backoffs) == (skipped, backed_off)
    assert run.learner.scaler.get_scale() == scale / 2**backed_off
    assert progress.skipped_in_a_row == skipped
    assert any(f"not finite: {'loss' if skipped else 'the grad'}" in t for t in run.log.messages)


@pytest.mark.parametrize(("bad", "ends_at"), [({4, 8, 12}, 4), ({4, 8, 16, 20}, None)])
def test_the_run_ends_after_so_many_in_a_row(tmp_path: Path, bad: set[int], ends_at) -> None:
    """Steps 1, 2, 3, or 1, 2 and 4, 5: only what follows each other counts."""

    def change(terms: dict[str, Tensor], _: int) -> dict[str, Tensor]:
        return {**terms, "xy": terms["xy"] * (math.nan if loss.images_seen[-1] in bad else 1)}

    loss = ToyLoss(change)
    run = trainer(tmp_path, loss=loss, max_skipped=3, evaluate_every=100)
    if ends_at is None:
        assert run.fit().skipped_steps == 4
        return
    with pytest.raises(UserError, match=r"at step 4: 3 steps in a row .* loss xy \(image ids 0"):
        run.fit()
    progress = load_checkpoint(tmp_path / "last.pt")["progress"]
    assert (progress["step"], progress["skipped_in_a_row"]) == (ends_at, 3)
    assert run.batches.closed == 1 and run.log.closed
    resumed = fit(tmp_path, evaluate_every=100, max_skipped=3, resuming=True)  # data corrected
    progress = resumed.progress
    assert (progress.step, progress.skipped_steps, progress.skipped_in_a_row) == (6, 3, 0)


def test_a_state_that_is_not_finite_replaces_no_file(tmp_path: Path) -> None:
    trainer(tmp_path, steps=2, evaluate_every=1).fit()
    before = {name: (tmp_path / name).read_bytes() for name in ("last.pt", "best.pt")}
    run = trainer(tmp_path, evaluate_every=100, evaluator=ToyEvaluator([1e9] * 3), resuming=True)
    momentum = run.learner.optimizer.state[run.learner.model.out.weight]["exp_avg"]
    momentum[0, 0] = math.inf  # by no step's fault
    with pytest.raises(UserError) as error:
        run.save()
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'last.pt'}: not written at step 2")
    assert "(optimizer.state." in message and "exp_avg)" in message
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    run = trainer(tmp_path, **QUIET, max_skipped=1)
    with torch.no_grad():
        run.learner.model.conv.bias[2] = math.nan
    with pytest.raises(UserError, match=r"no longer finite \(model\.conv\.bias"):
        run.fit()
    assert any("from the weights conv.bias (image ids 0, 1)" in text for text in run.log.messages)
    assert not (tmp_path / "last.pt").exists() and run.ranks == ONE_RANK
