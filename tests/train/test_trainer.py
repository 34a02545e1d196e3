"""The training loop with a network, a loss, batches and an evaluator that know no detection."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from tests.train.toys import (
    DEFAULTS,
    IMAGES,
    STEPS,
    ToyBatches,
    ToyEvaluator,
    ToyLoss,
    ToyNet,
    TwoPartNet,
    at,
    differences,
    fit,
    signal_at,
    spoil,
    toy_accuracy,
    toy_batch,
    toy_image,
    trainer,
)
from yolo.errors import UserError
from yolo.train.checkpoint import load_checkpoint
from yolo.train.freezing import Freeze
from yolo.train.interruption import Interrupted
from yolo.train.optimizers import adam, adamw, sgd
from yolo.train.precision import Precision
from yolo.train.progress import Progress
from yolo.train.run_folder import RunLock
from yolo.train.schedules import Plateau
from yolo.train.trainer import Trainer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For networks this small a second thread is but waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_resumes_exactly(run: Callable[..., Trainer], folder: Path, stop: Callable) -> Trainer:
    """A run that was stopped and went on ends like the whole one, which is returned."""
    whole = run(folder / "whole")
    with pytest.raises(Interrupted):
        run(folder / "stopped", batches=ToyBatches(before=stop))
    resumed = run(folder / "stopped", resuming=True)
    assert differences(whole.state_dict(), resumed.state_dict()) == []
    return whole


def signal_in_evaluation(number: int) -> Callable[[], None]:
    calls = iter(range(1, 100))
    return lambda: signal.raise_signal(signal.SIGTERM) if next(calls) == number else None


def stops() -> Iterator[tuple[str, dict[str, Any], int]]:
    """Every place where a signal can come, and the step whose checkpoint it leaves."""
    for step in range(STEPS):
        for index in (0, 1):  # of two: a step that still lacks one is as if not begun
            batches = ToyBatches(before=signal_at(step, index))
            yield f"{step}, micro-batch {index}", {"batches": batches}, step
    for number in (1, 2):
        evaluator = ToyEvaluator(before=signal_in_evaluation(number))
        yield f"evaluation {number}", {"evaluator": evaluator}, number * DEFAULTS["evaluate_every"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(tmp_path: Path, precision) -> None:
    assert fit(tmp_path / "whole", precision=Precision(precision)).progress.step == STEPS
    expected = {name: load_checkpoint(tmp_path / "whole" / name) for name in ("last.pt", "best.pt")}
    assert expected["last.pt"]["progress"]["skipped_steps"] == 0
    for name, parts, step in stops():
        folder = tmp_path / name
        stopped = trainer(folder, precision=Precision(precision), **parts)
        with pytest.raises(Interrupted) as caught:
            stopped.fit()
        assert caught.value.exit_code == 128 + signal.SIGTERM
        assert stopped.batches.closed == 1 and stopped.log.closed

        assert load_checkpoint(folder / "last.pt")["progress"]["step"] == step, name
        torch.manual_seed(999)  # a new process has other random numbers
        model = ToyNet()
        nn.init.zeros_(model.out.weight)
        resumed = fit(folder, model=model, precision=Precision(precision), resuming=True)
        assert sorted(stopped.log.evaluated + resumed.log.evaluated) == [3, 6], name
        for file, content in expected.items():
            assert differences(content, load_checkpoint(folder / file)) == [], (name, file)
        assert sorted(path.name for path in folder.iterdir()) == ["best.pt", "last.pt"]


def test_what_was_learnt_before_a_failure_is_kept(tmp_path: Path) -> None:
    """An image that cannot be read costs no step, wherever it is: the run goes on to the bit."""
    rarely = {"checkpoint_every": 100, "evaluate_every": 5}
    whole = fit(tmp_path / "whole", **rarely)
    fail = Mock(side_effect=UserError("an image cannot be decoded"))
    for name, step, parts in (
        ("first", 3, {"batches": ToyBatches(before=at(3, 0, fail))}),
        ("second", 3, {"batches": ToyBatches(before=at(3, 1, fail))}),  # statistics have moved
        ("evaluation", 5, {"evaluator": ToyEvaluator(before=fail)}),
    ):
        stopped = trainer(tmp_path / name, **parts, **rarely)
        with pytest.raises(UserError, match="an image cannot be decoded"):
            stopped.fit()
        last = tmp_path / name / "last.pt"
        assert stopped.log.messages[-1] == f"{last}: keeps what was learnt until step {step}"
        assert load_checkpoint(last)["progress"]["step"] == step
        resumed = fit(tmp_path / name, **rarely, resuming=True)
        assert differences(whole.state_dict(), resumed.state_dict()) == [], name


def test_a_state_between_two_steps_is_not_kept(tmp_path: Path) -> None:
    model = ToyNet()
    optimizer = adam(model, learning_rate=0.01)
    failure = RuntimeError("in the middle of an update")
    optimizer.register_step_post_hook(Mock(side_effect=[None, None, None, failure]))
    run = trainer(tmp_path, model=model, optimizer=optimizer, checkpoint_every=2)
    with pytest.raises(RuntimeError, match="in the middle of an update"):
        run.fit()
    assert load_checkpoint(tmp_path / "last.pt")["progress"]["step"] == 3  # of the evaluation


def test_weights_that_are_no_numbers_are_not_kept_after_a_failure(tmp_path: Path) -> None:
    model = ToyNet()

    def fail() -> None:
        nn.init.constant_(model.out.weight, torch.nan)
        raise UserError("an image cannot be decoded")

    run = trainer(tmp_path, model=model, batches=ToyBatches(before=at(1, 0, fail)))
    with pytest.raises(UserError, match="an image"):
        run.fit()
    assert not (tmp_path / "last.pt").exists()


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    fit(tmp_path)
    before = (tmp_path / "last.pt").read_bytes(), (tmp_path / "best.pt").read_bytes()
    again = trainer(tmp_path, resuming=True)
    assert again.fit().step == STEPS
    finished = f"{tmp_path}: finished already, at step {STEPS}; more steps train longer"
    assert again.log.messages[0] == finished
    assert again.log.evaluated == [] and again.log.trained == []
    assert ((tmp_path / "last.pt").read_bytes(), (tmp_path / "best.pt").read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_a_checkpoint_of_the_first_version_goes_on(tmp_path: Path) -> None:
    """It knows neither a schedule's state nor steps skipped in a row."""
    state = load_checkpoint(Path(__file__).parent / "data" / "checkpoint_version_1.pt")
    assert "schedule" not in state and "skipped_in_a_row" not in state["progress"]
    run = trainer(tmp_path, steps=STEPS + 1)
    (tmp_path / "last.pt").write_bytes(b"")  # for the best one's name
    run.load_state_dict(state)
    assert differences(run.state_dict()["model"], state["model"]) == []
    progress = run.fit()
    assert (progress.step, progress.skipped_in_a_row) == (STEPS + 1, 0)


def test_a_crash_between_the_two_names_is_repaired_on_resuming(tmp_path: Path) -> None:
    fit(tmp_path, evaluator=ToyEvaluator([0.1, 0.2]))
    (tmp_path / "best.pt").unlink()
    trainer(tmp_path, resuming=True)
    assert load_checkpoint(tmp_path / "best.pt")["progress"]["best_figure"] == 0.2


# Arithmetic of a step


def weights_after(folder: Path, micro_batches: int, **parts) -> list[Tensor]:
    model = ToyNet(plain=True).double()
    optimizer = sgd(model, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    batches = ToyBatches(micro_batches=micro_batches)
    fit(folder, model=model, optimizer=optimizer, batches=batches, **parts)
    return [p.detach().clone() for p in model.parameters()]


def test_micro_batches_do_not_change_the_result(tmp_path: Path) -> None:
    start = list(ToyNet(plain=True).double().parameters())
    one, two, four = (weights_after(tmp_path / str(n), n) for n in (1, 2, 4))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(one, start, strict=True))
    for other in (two, four):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_a_step_by_hand(tmp_path: Path) -> None:
    """Against the plainest loop there is, with the schedule; and what is logged about it."""
    rates, model = [0.5, 0.25, 1.0], ToyNet(plain=True).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    run = fit(tmp_path, model=model, optimizer=optimizer, schedule=rates.__getitem__, steps=3)
    trained = run.log.trained
    naive = ToyNet(plain=True).double()
    losses = []
    for step, factor in enumerate(rates):
        batch = toy_batch(step, range(IMAGES))
        loss = (naive(batch.images) - batch.targets.boxes_cxcywh_norm).square().sum() / IMAGES
        naive.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in naive.parameters():
                parameter -= 0.2 * factor * parameter.grad
    pair = [list(network.parameters()) for network in (model, naive)]
    torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-14)
    assert [step for step, _ in trained] == [1, 2, 3]
    assert [figures["loss"] for _, figures in trained] == pytest.approx(losses, rel=1e-6)
    assert [f["learning_rate"] for _, f in trained] == pytest.approx([0.1, 0.05, 0.2])
    for _, figures in trained:
        terms = figures["loss/xy"] + figures["loss/wh"]
        assert figures["loss"] == pytest.approx(terms) and figures["images_per_second"] > 0


def test_reports_average_over_their_steps(tmp_path: Path) -> None:
    often = fit(tmp_path / "a").log
    rarely = fit(tmp_path / "b", log_every=4, evaluate_every=6).log
    losses = [figures["loss"] for _, figures in often.trained]
    # the first and the last step are always reported
    assert [step for step, _ in rarely.trained] == [1, 4, 6]
    expected = [losses[0], sum(losses[1:4]) / 3, sum(losses[4:]) / 2]
    assert [figures["loss"] for _, figures in rarely.trained] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("clip", [None, 0.01, 1e6])
def test_the_gradient_is_cut_to_its_limit_and_only_then(tmp_path: Path, clip) -> None:
    model, before = ToyNet(plain=True).double(), ToyNet(plain=True).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    run = fit(tmp_path, model=model, optimizer=optimizer, steps=1, gradient_clip=clip)
    batch = toy_batch(0, range(IMAGES))
    sum(ToyLoss()(before(batch.images), batch.targets, IMAGES).values()).backward()
    norm = torch.cat([p.grad.flatten() for p in before.parameters()]).norm()
    assert norm > 0.1
    ((_, figures),) = run.log.trained
    assert figures["gradient_norm"] == pytest.approx(norm.item())  # before it is cut
    share = 0.01 / norm if clip == 0.01 else 1.0
    for ours, theirs in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(theirs - ours, theirs.grad * share, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("ramp", [False, True])
def test_averaged_weights_with_the_trained_statistics_are_evaluated(tmp_path: Path, ramp) -> None:
    evaluator = fit(tmp_path / "a", evaluate_every=1, ema_decay=0.3, ema_ramp=ramp).evaluator
    plain = fit(tmp_path / "b", evaluate_every=1, ema_decay=None).evaluator
    average = plain.seen[0]["out.weight"]
    # the first step's weights are the first average; (1 + step) / (10 + step) for steps 1 to 5
    ramped = [2 / 11, 3 / 12, 0.3, 0.3, 0.3]
    decays = iter(ramped if ramp else [0.3] * 5)
    for seen, trained in zip(evaluator.seen, plain.seen, strict=True):
        if trained is not plain.seen[0]:
            decay = next(decays)
            average = decay * average + (1 - decay) * trained["out.weight"]
        torch.testing.assert_close(seen["out.weight"], average)
        assert torch.equal(seen["between.0.running_mean"], trained["between.0.running_mean"])
    assert not torch.equal(evaluator.seen[-1]["out.weight"], plain.seen[-1]["out.weight"])
    assert load_checkpoint(tmp_path / "b" / "last.pt")["ema"] is None


def test_the_loss_knows_how_many_images_were_seen_before(tmp_path: Path) -> None:
    loss, later = ToyLoss(), ToyLoss()
    fit(tmp_path, loss=loss, steps=3)
    assert loss.images_seen == [0, 0, 4, 4, 8, 8]  # two micro-batches in each step of 4 images
    fit(tmp_path, loss=later, steps=4, resuming=True)
    assert later.images_seen == [12, 12]


def test_accuracy_is_counted_over_the_steps_of_a_report(tmp_path: Path) -> None:
    run = fit(
        tmp_path,
        log_every=4,
        steps=4,
        evaluate_every=4,
        batches=ToyBatches(change=spoil(2)),  # a skipped step counts nowhere
        accuracy=toy_accuracy,
    )
    (_, figures) = run.log.trained[1]  # after that of the first step
    boxes = [toy_image(step, place)[1][0] for step in (1, 3) for place in range(IMAGES)]
    assert figures["accuracy/bright"] == sum(box > 0.5 for box in boxes) / (2 * IMAGES)
    assert 0 < figures["accuracy/bright"] < 1
    assert "accuracy/never" not in figures


# Parts that keep their weights


def freezing(folder: Path, settings: dict[str, Any], build=adamw, **parts) -> Trainer:
    model = TwoPartNet()
    return fit(
        folder,
        model=model,
        optimizer=build(model, learning_rate=0.01, weight_decay=0.1),
        schedule=lambda step: 1.0,
        evaluate_every=100,
        freeze=Freeze(model, **settings),
        **parts,
    )


@pytest.mark.parametrize("build", [adamw, sgd])
@pytest.mark.parametrize(
    ("until", "batch_norm", "frozen"),
    [
        ("encoder", "frozen_part", {"encoder"}),
        ("encoder.stages.0", "frozen_part", {"encoder.stages.0"}),
        ("encoder", "trained", {"encoder.stages.0.0", "encoder.stages.1.0"}),
        ("encoder.stages.0", "whole_network", {"encoder.stages.0", "encoder.stages.1.1", "norm"}),
    ],
)
def test_what_is_frozen_keeps_every_bit(tmp_path: Path, until, batch_norm, frozen, build) -> None:
    """Parameters, statistics, averages and the optimizer's state; the rest moves."""
    start = TwoPartNet().state_dict()
    run = freezing(tmp_path, {"until": until, "batch_norm": batch_norm}, build, steps=20)
    state = run.state_dict()
    kept = {name for name in start if any(name.startswith(f"{part}.") for part in frozen)}
    unchanged = {name for name in start if torch.equal(start[name], state["model"][name])}
    assert unchanged == kept and kept < set(start)
    averaged = {name for name in start if torch.equal(start[name], state["ema"][f"module.{name}"])}
    assert kept <= averaged
    named = dict(run.learner.model.named_parameters())
    assert {id(p) for p in run.learner.optimizer.state} == {
        id(parameter) for name, parameter in named.items() if name not in kept
    }
    assert all(parameter.grad is None for parameter in named.values())


@pytest.mark.parametrize("build", [adamw, sgd])
def test_from_the_step_of_unfreezing_on_everything_moves(tmp_path: Path, build) -> None:
    settings = {"batch_norm": "whole_network", "unfreeze_at": 20}
    start = TwoPartNet().state_dict()
    before, after = (freezing(tmp_path / str(n), settings, build, steps=n) for n in (20, 23))
    moved = [
        {n for n in start if not torch.equal(start[n], run.learner.model.state_dict()[n])}
        for run in (before, after)
    ]
    assert moved == [{"out.weight", "out.bias"}, set(start)]
    line = "step 20: everything is trained from here on"
    assert (line in before.log.messages, line in after.log.messages) == (False, True)
    assert before.log.messages[0].startswith("frozen before step 20: ")


@pytest.mark.parametrize("build", [adamw, sgd])
@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_resuming_is_exact_across_the_unfreezing(tmp_path: Path, stop_at: int, build) -> None:
    run = partial(freezing, settings={"unfreeze_at": 3}, build=build)
    assert_resumes_exactly(run, tmp_path, signal_at(stop_at, 0))


def test_the_encoder_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    model, before = TwoPartNet().double(), TwoPartNet().double()
    optimizer = sgd(model, learning_rate=1.0, encoder_learning_rate=0.01, momentum=0)
    run = fit(tmp_path, model=model, optimizer=optimizer, schedule=lambda step: 0.5, steps=1)
    batches = [toy_batch(0, range(2)), toy_batch(0, range(2, 4))]
    for batch in batches:
        sum(ToyLoss()(before(batch.images), batch.targets, IMAGES).values()).backward()
    for (name, ours), theirs in zip(model.named_parameters(), before.parameters(), strict=True):
        rate = 0.005 if name.startswith("encoder.") else 0.5
        torch.testing.assert_close(theirs - ours, rate * theirs.grad, rtol=1e-9, atol=1e-14)
    ((_, figures),) = run.log.trained
    assert (figures["learning_rate"], figures["learning_rate_encoder"]) == (0.5, 0.005)


# Steps that fail


def test_training_goes_on_after_a_skipped_step(tmp_path: Path) -> None:
    run = trainer(tmp_path, batches=ToyBatches(change=spoil(1)), log_every=3)
    assert run.fit().skipped_steps == 1
    assert all(p.isfinite().all() for p in run.learner.model.parameters())
    assert all(figures["loss"] < 10 for _, figures in run.log.trained)
    assert run.learner.optimizer.state[run.learner.model.out.weight]["step"].item() == STEPS - 1


def test_the_scaler_of_fp16_looks_for_its_scale_and_resumes_with_it(tmp_path: Path) -> None:
    loud = ToyLoss(lambda terms, _: {name: term * 20 for name, term in terms.items()})
    parts = {"loss": loud, "precision": Precision("fp16")}
    start = trainer(tmp_path, **parts).learner.scaler.get_scale()
    whole = assert_resumes_exactly(partial(fit, **parts), tmp_path, signal_at(2, 1))
    progress = whole.progress
    assert progress.scaler_backoffs > 0 and progress.skipped_steps == 0
    assert whole.learner.scaler.get_scale() == start / 2**progress.scaler_backoffs
    steps = whole.learner.optimizer.state[whole.learner.model.out.weight]["step"]
    assert steps == STEPS - progress.scaler_backoffs > 0


@pytest.mark.parametrize(
    "error",
    [
        None,  # a CPU's own
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously ..."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_out_of_memory_is_explained(tmp_path: Path, error: RuntimeError | None) -> None:
    class Greedy(ToyNet):
        def forward(self, images: Tensor) -> Tensor:
            if error is None:
                return torch.empty(1 << 60)
            raise error

    run = trainer(tmp_path, model=Greedy())
    message = "out of memory on cpu: make the micro-batch or the images smaller"
    with pytest.raises(UserError, match=message):
        run.fit()
    assert run.batches.closed == 1 and run.log.closed


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    model = ToyNet()
    model.out = nn.Linear(5, 4)
    with pytest.raises(RuntimeError, match="shape") as caught:
        fit(tmp_path, model=model)
    assert not isinstance(caught.value, UserError)


# Evaluations, checkpoints, patience


def test_best_is_the_first_of_the_highest(tmp_path: Path) -> None:
    evaluator = ToyEvaluator([0.1, 0.3, 0.2, 0.3, 0.0, 0.25])
    run = fit(tmp_path, evaluate_every=1, evaluator=evaluator)
    progress = run.progress
    assert (progress.best_figure, progress.best_step) == (0.3, 2)
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["progress"]["step"] == 2 and best["progress"]["figures"] == {"toy": 0.3}
    assert best["micro_batch_size"] == 2  # the metadata travels along
    last = load_checkpoint(tmp_path / "last.pt")
    assert Progress(**last["progress"]) == progress and progress.step == 6
    assert progress.figures == {"toy": 0.25} and progress.evaluations_since_best == 4
    assert run.log.messages[-1] == f"best toy 0.3000 at step 2: {tmp_path / 'best.pt'}"


def test_a_figure_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    figures = [float("nan"), -1.0, float("nan"), 0.0, float("nan"), -2.0]
    progress = fit(tmp_path, evaluate_every=1, evaluator=ToyEvaluator(figures)).progress
    assert (progress.best_figure, progress.best_step) == (0.0, 4)
    assert load_checkpoint(tmp_path / "best.pt")["progress"]["step"] == 4
    run = trainer(tmp_path / "nan", evaluate_every=1, evaluator=ToyEvaluator(figures), steps=1)
    assert run.fit().best_figure is None and not (tmp_path / "nan" / "best.pt").exists()
    assert load_checkpoint(tmp_path / "nan" / "last.pt")["progress"]["figures"] == {}


@pytest.mark.parametrize(
    ("figures", "best"),  # None where there is no truth; best.pt after each evaluation
    [([None] * 4, [1, 2, 3, 4]), ([None, None, 0.0, None], [1, 2, 3, 3])],
)
def test_without_a_truth_the_newest_is_the_best(tmp_path: Path, figures: list, best: list) -> None:
    """And neither patience nor a target nor a plateau goes by what was not measured."""
    schedule = Plateau(factor=0.5, patience=0, threshold=0.0, min_factor=0.1)
    limits = {"patience": 2, "target_figure": -5.0 if None in figures[2:3] else 0.5}
    settings = {"evaluate_every": 1, "schedule": schedule, **limits}
    for steps, step in enumerate(best, start=1):
        evaluator = ToyEvaluator(figures[steps - 1 :])
        resuming = steps > 1
        run = fit(tmp_path, evaluator=evaluator, steps=steps, resuming=resuming, **settings)
        assert run.progress.step == steps
        assert load_checkpoint(tmp_path / "best.pt")["progress"]["step"] == step
        assert run.log.trained[-1][1]["learning_rate"] == 0.01
    assert f"step {steps}: no figure, for toy has no truth" in run.log.messages
    assert "the best so far" not in " ".join(run.log.messages)


def test_older_checkpoints_took_minus_one_for_a_figure() -> None:
    progress = Progress(step=6, evaluated_step=6, best_figure=-1.0, best_step=2)
    progress.step = 8
    progress.note(None, {"AP50": -1.0})
    assert (progress.best_figure, progress.is_best, progress.evaluations_since_best) == (
        None,
        True,
        0,
    )


@pytest.mark.parametrize(
    ("figures", "limit", "stops_at", "text"),
    [
        ([0.1, 0.3, 0.3, 0.2, 0.9, 0.9], {"patience": 2}, 4, "has not risen for 2 evaluations"),
        ([0.0] * 6, {"patience": 2}, 3, "has not risen for 2 evaluations"),
        ([1.0, 2, 3, 4, 5, 6], {"patience": 2}, 6, None),
        ([0.1, 0.9, 0.5, 0.95], {"target_figure": 0.9}, 2, "stopped: toy 0.9000 has reached 0.9"),
        ([0.8] * 6, {"target_figure": 0.9}, 6, None),
    ],
)
def test_patience_and_a_target_end_the_training(
    tmp_path: Path, figures: list[float], limit: dict, stops_at: int, text: str | None
) -> None:
    run = fit(tmp_path, evaluate_every=1, evaluator=ToyEvaluator(figures), **limit)
    assert run.progress.step == stops_at
    stopped = [message for message in run.log.messages if "stopped" in message]
    assert len(stopped) == (stops_at < STEPS) and all(text in message for message in stopped)
    again = fit(tmp_path, evaluate_every=1, **limit, resuming=True)
    assert again.progress.step == stops_at and again.log.trained == []


def test_a_schedule_that_goes_by_the_figures_resumes_exactly(tmp_path: Path) -> None:
    """Without a better figure the rate is halved: after evaluations 2, 4 and 5."""
    figures = [0.3, 0.2, 0.4, 0.4, float("nan"), 0.1]

    def run(folder: Path, figures: list[float], **parts) -> Trainer:
        schedule = Plateau(factor=0.5, patience=0, threshold=0.0, min_factor=0.1)
        evaluator = ToyEvaluator(figures)
        return fit(folder, schedule=schedule, evaluator=evaluator, evaluate_every=1, **parts)

    whole = run(tmp_path / "a", figures)
    rates = [f["learning_rate"] / 0.01 for _, f in whole.log.trained]
    assert rates == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.125])
    for steps in (1, 2, 4):
        folder = tmp_path / str(steps)
        run(folder, figures, steps=steps)
        resumed = run(folder, figures[steps:], resuming=True)
        assert differences(whole.state_dict(), resumed.state_dict()) == [], steps


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [(3, 6, [3, 6]), (4, 6, [4, 6]), (100, 5, [5]), (1, 3, [1, 2, 3])],
)
def test_evaluated_when_due_and_once_at_the_end(tmp_path, every, steps, expected) -> None:
    run = fit(tmp_path, evaluate_every=every, steps=steps)
    assert run.log.evaluated == expected and len(run.evaluator.seen) == len(expected)


def test_evaluating_and_counting_change_nothing_in_the_training(tmp_path: Path) -> None:
    class Careless(ToyEvaluator):
        def evaluate(self, model, interruption):
            torch.rand(100)  # draws from the generator that dropout uses
            model.eval()
            return super().evaluate(model, interruption)

    often = fit(tmp_path / "a", evaluator=Careless(), evaluate_every=1)
    rarely = fit(tmp_path / "b", evaluate_every=100)
    for part in ("model", "optimizer"):
        assert differences(often.state_dict()[part], rarely.state_dict()[part]) == []
    counting, without = fit(tmp_path / "c", accuracy=toy_accuracy), fit(tmp_path / "d")
    assert differences(counting.state_dict(), without.state_dict()) == []


class SingleValue(ToyNet):
    """Its batch norm sees one number per channel, as at 32 px with one image."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images / 255).mean((2, 3), keepdim=True)
        return self.out(self.between(x).flatten(1))


def test_one_image_too_small_for_batch_norm_is_explained(tmp_path: Path) -> None:
    run = trainer(tmp_path, model=SingleValue(), batches=ToyBatches(micro_batches=4))
    with pytest.raises(UserError, match="batch norm cannot learn from a single value per channel"):
        run.fit()
    assert run.batches.closed == 1 and run.log.closed
    assert fit(tmp_path, model=SingleValue()).progress.step == STEPS  # two at a time


def test_the_log_and_the_lock_are_let_go_even_if_a_worker_does_not_end(tmp_path: Path) -> None:
    class Stuck(ToyBatches):
        def close(self) -> None:
            raise RuntimeError("it does not end")

    run = trainer(tmp_path, batches=Stuck(), lock=RunLock(tmp_path))
    with pytest.raises(RuntimeError, match="it does not end"):
        run.fit()
    assert run.log.closed
    RunLock(tmp_path).release()
