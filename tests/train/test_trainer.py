"""The training loop with a network, a loss, batches and an evaluator that know no detection."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.detectors import ONE_RANK
from yolo.errors import UserError
from yolo.records import Batch, Targets
from yolo.train.checkpoint import load_checkpoint
from yolo.train.distributed import Ranks
from yolo.train.interruption import Interrupted
from yolo.train.learner import Learner
from yolo.train.log import RunLog
from yolo.train.optimizers import Freeze, adam, adamw, sgd
from yolo.train.precision import Precision
from yolo.train.progress import Evaluation, Plan, Progress
from yolo.train.run_folder import RunLock
from yolo.train.schedules import Plateau
from yolo.train.trainer import Trainer

STEPS, IMAGES = 6, 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For networks this small a second thread is but waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ToyNet(nn.Module):
    """Everything that a resumed run can get wrong: batch norm's statistics and dropout's chance."""

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.conv = nn.Conv2d(3, 6, 3)
        self.between = (
            nn.Sequential() if plain else nn.Sequential(nn.BatchNorm2d(6), nn.Dropout(0.3))
        )
        self.out = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images.to(self.conv.weight.dtype) / 255)
        return self.out(self.between(x).relu().mean((2, 3)))


class TwoPartNet(nn.Module):
    """Something to freeze: an encoder of two stages, and a head with a batch norm of its own."""

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.encoder = nn.Module()
        self.encoder.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, bias=plain), nn.Identity() if plain else nn.BatchNorm2d(b)
            )
            for a, b in ((3, 6), (6, 6))
        )
        self.norm = nn.Identity() if plain else nn.BatchNorm2d(6)
        self.out = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.out.weight.dtype) / 255
        for stage in self.encoder.stages:
            x = stage(x).relu()
        return self.out(self.norm(x).mean((2, 3)))


class ToyLoss(nn.Module):
    """Squared distance of the 4 outputs from an image's one box, as two terms."""

    def __init__(self) -> None:
        super().__init__()
        self.images_seen: list[int | None] = []

    def forward(
        self,
        outputs: Tensor,
        targets: Targets,
        images_in_step: int,
        images_seen: int | None = None,
    ) -> dict[str, Tensor]:
        self.images_seen.append(images_seen)
        wanted = targets.boxes_cxcywh_norm.to(torch.promote_types(outputs.dtype, torch.float32))
        distance = (outputs.to(wanted.dtype) - wanted).square().sum(0) / images_in_step  # (4,)
        return {"xy": distance[:2].sum(), "wh": distance[2:].sum()}


def toy_image(step: int, place: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + place)
    pixels = torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8)
    return pixels, torch.rand(4, generator=generator)


def toy_batch(step: int, places: range) -> Batch:
    images, boxes = zip(*(toy_image(step, place) for place in places), strict=True)
    count = len(places)
    targets = Targets(
        boxes_cxcywh_norm=torch.stack(boxes),
        labels=torch.zeros(count, dtype=torch.int64),
        image_index=torch.arange(count),
        ignored=torch.zeros(count, dtype=torch.bool),
        max_per_image=1,
    )
    pixels = torch.stack(images).contiguous(memory_format=torch.channels_last)
    return Batch(pixels, targets, torch.tensor(places), torch.full((count, 2), 8))


class ToyBatches:
    """The same images in a step, however many micro-batches and ranks share them."""

    def __init__(
        self,
        *,
        micro_batches: int = 2,
        ranks: Ranks = ONE_RANK,
        before: Callable[[int, int], None] = lambda step, index: None,
        change: Callable[[int, int, Batch], Batch] = lambda step, index, batch: batch,
    ) -> None:
        self.micro_batches_per_step = micro_batches
        self._ranks, self._before, self._change = ranks, before, change
        self.closed = 0

    def from_step(self, step: int) -> Iterator[Batch]:
        count = IMAGES // self._ranks.world_size // self.micro_batches_per_step
        while True:
            for index in range(self.micro_batches_per_step):
                self._before(step, index)
                first = (self._ranks.rank * self.micro_batches_per_step + index) * count
                yield self._change(step, index, toy_batch(step, range(first, first + count)))
            step += 1

    def close(self) -> None:
        self.closed += 1


class ToyEvaluator:
    """The figures of a list, or one that depends on every weight and statistic."""

    monitor = "toy"

    def __init__(
        self, figures: list[float] | None = None, before: Callable[[], None] = lambda: None
    ) -> None:
        self._figures, self._before = figures, before
        self.seen: list[dict[str, Tensor]] = []

    def evaluate(self, model: nn.Module, interrupted: Callable[[], bool]) -> Evaluation | None:
        self._before()
        if interrupted():
            return None
        state = {name: value.clone() for name, value in model.state_dict().items()}
        self.seen.append(state)
        figure = -sum(value.double().abs().sum().item() for value in state.values())
        if self._figures is not None:
            figure = self._figures[len(self.seen) - 1]
        return Evaluation(
            figure=figure, figures={"toy": figure}, images_per_second=1.0, text="a table"
        )


class Notes(RunLog):
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.trained: list[tuple[int, dict[str, float]]] = []
        self.evaluated: list[int] = []
        self.closed = False

    def message(self, text: str) -> None:
        self.said.append(text)

    def training(self, step, figures, *, seconds_left) -> None:
        self.trained.append((step, dict(figures)))

    def evaluation(self, step, figures, pictures) -> None:
        self.evaluated.append(step)

    def close(self) -> None:
        self.closed = True


PLAN = {
    "steps": STEPS,
    "images_per_step": IMAGES,
    "evaluate_every": 3,
    "checkpoint_every": 2,
    "log_every": 1,
    "ema_decay": 0.9,
    "seed": 5,
}


LEARNER = ("images_per_step", "gradient_clip", "ema_decay", "seed", "accuracy", "freeze")


def trainer(folder: Path, **parts) -> Trainer:
    """A training whose parts a test replaces; entries of the plan are parts too."""
    numbers = {name: parts.pop(name, value) for name, value in PLAN.items()}
    numbers |= parts.pop("more", {})
    model = parts.pop("model", None) or ToyNet()
    ranks = parts.pop("ranks", ONE_RANK)
    folder.mkdir(exist_ok=True)
    learner = Learner(
        model=model,
        loss=parts.pop("loss", None) or ToyLoss(),
        optimizer=parts.pop("optimizer", None)
        or adam(model, learning_rate=0.01, weight_decay=0.01),
        schedule=parts.pop("schedule", lambda step: 1 / (1 + step)),
        precision=parts.pop("precision", Precision("fp32")),
        ranks=ranks,
        **{name: numbers.pop(name) for name in LEARNER if name in numbers},
    )
    defaults = {
        "batches": ToyBatches(),
        "evaluator": ToyEvaluator(),
        "log": Notes(),
        "metadata": {"micro_batch_size": 2, "image_size_px": 8},
    }
    return Trainer(
        learner=learner, plan=Plan(**numbers), ranks=ranks, folder=folder, **{**defaults, **parts}
    )


def differences(a, b, where: str = "") -> list[str]:
    """Where two checkpoints are not the same to the last bit."""
    if isinstance(a, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [where]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and len(a) == len(b):
        return [
            d
            for i, pair in enumerate(zip(a, b, strict=True))
            for d in differences(*pair, f"{where}[{i}]")
        ]
    return [] if a == b else [f"{where}: {a} != {b}"]


def signal_at(step: int, index: int) -> Callable[[int, int], None]:
    """SIGTERM while this micro-batch is being fetched."""

    def before(at_step: int, at_index: int) -> None:
        if (at_step, at_index) == (step, index):
            signal.raise_signal(signal.SIGTERM)

    return before


def signal_in_evaluation(number: int) -> Callable[[], None]:
    calls = iter(range(1, 100))
    return lambda: signal.raise_signal(signal.SIGTERM) if next(calls) == number else None


def stopping_in_step(step: int, index: int) -> dict[str, Any]:
    return {"batches": ToyBatches(before=signal_at(step, index))}


def stopping_in_evaluation(number: int) -> dict[str, Any]:
    return {"evaluator": ToyEvaluator(before=signal_in_evaluation(number))}


def stops() -> Iterator[tuple[str, dict[str, Any], int]]:
    """Every place where a signal can come, and the step whose checkpoint it leaves."""
    for step in range(STEPS):
        for index in (0, 1):  # of two: the first one leaves a step unfinished
            yield f"{step}, micro-batch {index}", stopping_in_step(step, index), step + index
    for number in (1, 2):
        step = number * PLAN["evaluate_every"]
        yield f"evaluation {number}", stopping_in_evaluation(number), step


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(tmp_path: Path, precision) -> None:
    whole = trainer(tmp_path / "whole", precision=Precision(precision))
    assert whole.fit().step == STEPS
    expected = {name: load_checkpoint(tmp_path / "whole" / name) for name in ("last.pt", "best.pt")}
    assert expected["last.pt"]["progress"]["skipped_steps"] == 0
    for name, parts, step in stops():
        folder = tmp_path / name
        stopped = trainer(folder, precision=Precision(precision), **parts)
        with pytest.raises(Interrupted) as caught:
            stopped.fit()
        assert caught.value.exit_code == 128 + signal.SIGTERM
        assert stopped.batches.closed == 1 and stopped.log.closed

        checkpoint = load_checkpoint(folder / "last.pt")
        assert checkpoint["progress"]["step"] == step, name
        torch.manual_seed(999)  # a new process has other random numbers
        model = ToyNet()
        nn.init.zeros_(model.out.weight)
        resumed = trainer(folder, model=model, precision=Precision(precision))
        resumed.load_state_dict(checkpoint)
        resumed.fit()
        assert sorted(stopped.log.evaluated + resumed.log.evaluated) == [3, 6], name
        for file, content in expected.items():
            assert differences(content, load_checkpoint(folder / file)) == [], (name, file)
        assert sorted(path.name for path in folder.iterdir()) == ["best.pt", "last.pt"]


def failing_at(step: int, index: int) -> Callable[[int, int], None]:
    def before(at_step: int, at_index: int) -> None:
        if (at_step, at_index) == (step, index):
            raise UserError("an image cannot be decoded")

    return before


def test_what_was_learnt_before_a_failure_is_kept(tmp_path: Path) -> None:
    """An image that cannot be read costs no step, wherever it is: the run goes on to the bit."""
    rarely = {"checkpoint_every": 100, "evaluate_every": 5}
    whole = trainer(tmp_path / "whole", **rarely)
    whole.fit()
    calls = iter([UserError("an image cannot be decoded"), None])

    def once() -> None:
        if (error := next(calls)) is not None:
            raise error

    for name, step, parts in (
        ("first", 3, {"batches": ToyBatches(before=failing_at(3, 0))}),
        ("second", 3, {"batches": ToyBatches(before=failing_at(3, 1))}),  # statistics have moved
        ("evaluation", 5, {"evaluator": ToyEvaluator(before=once)}),
    ):
        stopped = trainer(tmp_path / name, **parts, **rarely)
        with pytest.raises(UserError, match="an image cannot be decoded"):
            stopped.fit()
        last = tmp_path / name / "last.pt"
        assert stopped.log.said[-1] == f"{last}: keeps what was learnt until step {step}"
        checkpoint = load_checkpoint(last)
        assert checkpoint["progress"]["step"] == step
        resumed = trainer(tmp_path / name, **rarely)
        resumed.load_state_dict(checkpoint)
        resumed.fit()
        assert differences(whole.state_dict(), resumed.state_dict()) == [], name


def test_a_state_between_two_steps_is_not_kept(tmp_path: Path) -> None:
    model = ToyNet()
    optimizer = adam(model, learning_rate=0.01)
    calls = iter(range(10))

    def fail(*_: object) -> None:
        if next(calls) == 3:
            raise RuntimeError("in the middle of an update")

    optimizer.register_step_post_hook(fail)
    run = trainer(tmp_path, model=model, optimizer=optimizer, checkpoint_every=2)
    with pytest.raises(RuntimeError, match="in the middle of an update"):
        run.fit()
    assert load_checkpoint(tmp_path / "last.pt")["progress"]["step"] == 3  # of the evaluation


def test_weights_that_are_no_numbers_are_not_kept_after_a_failure(tmp_path: Path) -> None:
    model = ToyNet()

    def spoil(step: int, index: int) -> None:
        if step == 1:
            with torch.no_grad():
                model.out.weight.fill_(torch.nan)
            raise UserError("an image cannot be decoded")

    run = trainer(tmp_path, model=model, batches=ToyBatches(before=spoil))
    with pytest.raises(UserError, match="an image"):
        run.fit()
    assert not (tmp_path / "last.pt").exists()


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    trainer(tmp_path).fit()
    before = (tmp_path / "last.pt").read_bytes(), (tmp_path / "best.pt").read_bytes()
    again = trainer(tmp_path)
    again.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert again.fit().step == STEPS
    assert again.log.said[0] == f"{tmp_path}: finished already, at step {STEPS}"
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


def test_a_crash_between_the_two_names_is_mended_on_resuming(tmp_path: Path) -> None:
    trainer(tmp_path, more={}, evaluator=ToyEvaluator([0.1, 0.2])).fit()
    (tmp_path / "best.pt").unlink()
    again = trainer(tmp_path)
    again.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert load_checkpoint(tmp_path / "best.pt")["progress"]["best_figure"] == 0.2


# Arithmetic of a step


def weights_after(folder: Path, micro_batches: int, **parts) -> list[Tensor]:
    model = ToyNet(plain=True).double()
    optimizer = sgd(model, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    batches = ToyBatches(micro_batches=micro_batches)
    trainer(folder, model=model, optimizer=optimizer, batches=batches, **parts).fit()
    return [p.detach().clone() for p in model.parameters()]


def test_micro_batches_do_not_change_the_result(tmp_path: Path) -> None:
    start = list(ToyNet(plain=True).double().parameters())
    one, two, four = (weights_after(tmp_path / str(n), n) for n in (1, 2, 4))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(one, start, strict=True))
    for other in (two, four):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_step_by_hand(tmp_path: Path) -> None:
    """Against the plainest loop there is, with the schedule; and what is logged about it."""
    rates = [0.5, 0.25, 1.0]
    log = Notes()
    model = ToyNet(plain=True).double()
    trainer(
        tmp_path,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2),
        schedule=lambda step: rates[step],
        log=log,
        steps=3,
    ).fit()
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
    for ours, theirs in zip(model.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert [step for step, _ in log.trained] == [1, 2, 3]
    assert [figures["loss"] for _, figures in log.trained] == pytest.approx(losses, rel=1e-6)
    assert [f["learning_rate"] for _, f in log.trained] == pytest.approx([0.1, 0.05, 0.2])
    for _, figures in log.trained:
        terms = figures["loss/xy"] + figures["loss/wh"]
        assert figures["loss"] == pytest.approx(terms) and figures["images_per_second"] > 0


def test_reports_average_over_their_steps(tmp_path: Path) -> None:
    often, rarely = Notes(), Notes()
    trainer(tmp_path / "a", log=often).fit()
    trainer(tmp_path / "b", log=rarely, log_every=4, evaluate_every=6).fit()
    losses = [figures["loss"] for _, figures in often.trained]
    assert [step for step, _ in rarely.trained] == [4, 6]  # the last step is always told
    expected = [sum(losses[:4]) / 4, sum(losses[4:]) / 2]
    assert [figures["loss"] for _, figures in rarely.trained] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("clip", [None, 0.01, 1e6])
def test_the_gradient_is_cut_to_its_limit_and_only_then(tmp_path: Path, clip) -> None:
    model, before = ToyNet(plain=True).double(), ToyNet(plain=True).double()
    trainer(
        tmp_path,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        steps=1,
        more={"gradient_clip": clip},
    ).fit()
    batch = toy_batch(0, range(IMAGES))
    sum(ToyLoss()(before(batch.images), batch.targets, IMAGES).values()).backward()
    norm = torch.cat([p.grad.flatten() for p in before.parameters()]).norm()
    assert norm > 0.1
    share = 0.01 / norm if clip == 0.01 else 1.0
    for ours, theirs in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(theirs - ours, theirs.grad * share, rtol=1e-4, atol=1e-12)


def test_averaged_weights_with_the_trained_statistics_are_evaluated(tmp_path: Path) -> None:
    evaluator = ToyEvaluator()
    plain = ToyEvaluator()
    trainer(tmp_path / "a", evaluator=evaluator, evaluate_every=1, ema_decay=0.75).fit()
    trainer(tmp_path / "b", evaluator=plain, evaluate_every=1, ema_decay=None).fit()
    average = plain.seen[0]["out.weight"]
    for seen, trained in zip(evaluator.seen, plain.seen, strict=True):
        if trained is not plain.seen[0]:
            average = 0.75 * average + 0.25 * trained["out.weight"]
        torch.testing.assert_close(seen["out.weight"], average)
        assert torch.equal(seen["between.0.running_mean"], trained["between.0.running_mean"])
    assert not torch.equal(evaluator.seen[-1]["out.weight"], plain.seen[-1]["out.weight"])
    assert load_checkpoint(tmp_path / "b" / "last.pt")["ema"] is None


def test_the_loss_knows_how_many_images_were_seen_before(tmp_path: Path) -> None:
    loss = ToyLoss()
    whole = trainer(tmp_path, loss=loss, steps=3)
    whole.fit()
    assert loss.images_seen == [0, 0, 4, 4, 8, 8]  # two micro-batches in each step of 4 images
    loss = ToyLoss()
    resumed = trainer(tmp_path, loss=loss, steps=4)
    resumed.load_state_dict(whole.state_dict())
    resumed.fit()
    assert loss.images_seen == [12, 12]


def toy_accuracy(outputs: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Images whose first pixel is bright, of all; and one that never has anything to count."""
    assert not torch.is_grad_enabled()
    bright = targets.boxes_cxcywh_norm[:, 0] > 0.5
    return {
        "bright": torch.stack([bright.sum(), torch.tensor(len(outputs))]),
        "never": torch.zeros(2),
    }


def test_accuracy_is_counted_over_the_steps_of_a_report(tmp_path: Path) -> None:
    run = trainer(
        tmp_path,
        log_every=3,
        steps=3,
        batches=ToyBatches(change=spoil(1)),  # a skipped step counts nowhere
        more={"accuracy": toy_accuracy},
    )
    run.fit()
    ((_, figures),) = run.log.trained
    boxes = [toy_image(step, place)[1][0] for step in (0, 2) for place in range(IMAGES)]
    assert figures["accuracy/bright"] == sum(box > 0.5 for box in boxes) / (2 * IMAGES)
    assert 0 < figures["accuracy/bright"] < 1
    assert "accuracy/never" not in figures


def test_counting_accuracy_changes_no_bit(tmp_path: Path) -> None:
    with_it = trainer(tmp_path / "a", more={"accuracy": toy_accuracy})
    without = trainer(tmp_path / "b")
    with_it.fit()
    without.fit()
    assert differences(with_it.state_dict(), without.state_dict()) == []


# Parts that keep their weights

FROZEN = [
    ({"until": "encoder"}, {"encoder"}),
    ({"until": "encoder.stages.0"}, {"encoder.stages.0"}),
    (
        {"until": "encoder", "batch_norm": "trained"},
        {"encoder.stages.0.0", "encoder.stages.1.0"},
    ),
    (
        {"until": "encoder.stages.0", "batch_norm": "whole_network"},
        {"encoder.stages.0", "encoder.stages.1.1", "norm"},
    ),
]


def freezing(folder: Path, settings: dict[str, Any], **parts) -> Trainer:
    build = parts.pop("build", adamw)
    model = TwoPartNet()
    return trainer(
        folder,
        model=model,
        optimizer=build(model, learning_rate=0.01, weight_decay=0.1),
        schedule=lambda step: 1.0,
        evaluate_every=100,
        more={"freeze": Freeze(model, **settings)},
        **parts,
    )


@pytest.mark.parametrize("build", [adamw, sgd])
@pytest.mark.parametrize(("settings", "frozen"), FROZEN)
def test_what_is_frozen_keeps_every_bit(tmp_path: Path, settings, frozen, build) -> None:
    """Parameters, statistics, averages and the optimizer's state; the rest moves."""
    start = TwoPartNet().state_dict()
    run = freezing(tmp_path, settings, build=build, steps=20)
    run.fit()
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
    before, after = (freezing(tmp_path / str(n), settings, build=build, steps=n) for n in (20, 23))
    before.fit()
    after.fit()
    moved = [
        {n for n in start if not torch.equal(start[n], run.learner.model.state_dict()[n])}
        for run in (before, after)
    ]
    assert moved == [{"out.weight", "out.bias"}, set(start)]
    said = "step 20: everything is trained from here on"
    assert (said in before.log.said, said in after.log.said) == (False, True)
    assert before.log.said[0].startswith("frozen before step 20: ")


@pytest.mark.parametrize("build", [adamw, sgd])
@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_resuming_is_exact_across_the_unfreezing(tmp_path: Path, stop_at: int, build) -> None:
    settings, parts = {"unfreeze_at": 3}, {"build": build, "steps": 6}
    whole = freezing(tmp_path / "whole", settings, **parts)
    whole.fit()
    batches = ToyBatches(before=signal_at(stop_at, 0))
    with pytest.raises(Interrupted):
        freezing(tmp_path / "b", settings, batches=batches, **parts).fit()
    resumed = freezing(tmp_path / "b", settings, **parts)
    resumed.load_state_dict(load_checkpoint(tmp_path / "b" / "last.pt"))
    resumed.fit()
    assert differences(whole.state_dict(), resumed.state_dict()) == []


def test_the_encoder_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    model, before = TwoPartNet().double(), TwoPartNet().double()
    run = trainer(
        tmp_path,
        model=model,
        optimizer=sgd(model, learning_rate=1.0, encoder_learning_rate=0.01, momentum=0),
        schedule=lambda step: 0.5,
        steps=1,
    )
    run.fit()
    batches = [toy_batch(0, range(2)), toy_batch(0, range(2, 4))]
    for batch in batches:
        sum(ToyLoss()(before(batch.images), batch.targets, IMAGES).values()).backward()
    for (name, ours), theirs in zip(model.named_parameters(), before.parameters(), strict=True):
        rate = 0.005 if name.startswith("encoder.") else 0.5
        torch.testing.assert_close(theirs - ours, rate * theirs.grad, rtol=1e-9, atol=1e-14)
    ((_, figures),) = run.log.trained
    assert (figures["learning_rate"], figures["learning_rate_encoder"]) == (0.5, 0.005)


# Steps that fail


def spoil(step: int) -> Callable[[int, int, Batch], Batch]:
    """A box that is no number in the first micro-batch of a step."""

    def change(at_step: int, index: int, batch: Batch) -> Batch:
        if (at_step, index) == (step, 0):
            batch.targets.boxes_cxcywh_norm[0, 0] = torch.nan
        return batch

    return change


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(tmp_path: Path) -> None:
    good = trainer(tmp_path / "a", steps=2, evaluate_every=100)
    good.fit()
    bad = trainer(tmp_path / "b", steps=3, evaluate_every=100, batches=ToyBatches(change=spoil(2)))
    progress = bad.fit()
    assert (progress.step, progress.skipped_steps, progress.scaler_backoffs) == (3, 1, 0)
    expected, found = good.state_dict(), bad.state_dict()
    for part in ("model", "ema", "optimizer"):
        for group in (expected, found):
            for settings in group["optimizer"]["param_groups"]:
                settings.pop("lr", None)  # that of the step
        assert differences(expected[part], found[part], part) == []
    assert any(text.startswith("step 2: skipped, not finite: loss xy") for text in bad.log.said)
    step, figures = bad.log.trained[-1]
    assert step == 3 and figures["skipped_steps"] == 1


def test_training_goes_on_after_a_skipped_step(tmp_path: Path) -> None:
    run = trainer(tmp_path, batches=ToyBatches(change=spoil(1)), log_every=3)
    assert run.fit().skipped_steps == 1
    assert all(p.isfinite().all() for p in run.learner.model.parameters())
    assert all(figures["loss"] < 10 for _, figures in run.log.trained)
    assert run.learner.optimizer.state[run.learner.model.out.weight]["step"].item() == STEPS - 1


def test_the_scaler_of_fp16_looks_for_its_scale_and_resumes_with_it(tmp_path: Path) -> None:
    class Loud(ToyLoss):
        def forward(self, outputs, targets, images_in_step, images_seen=None):
            terms = super().forward(outputs, targets, images_in_step)
            return {name: term * 20 for name, term in terms.items()}

    parts = {"loss": Loud(), "precision": Precision("fp16")}
    whole = trainer(tmp_path / "whole", **parts)
    start = whole.learner.scaler.get_scale()
    progress = whole.fit()
    assert progress.scaler_backoffs > 0 and progress.skipped_steps == 0
    assert whole.learner.scaler.get_scale() == start / 2**progress.scaler_backoffs
    assert (
        whole.learner.optimizer.state[whole.learner.model.out.weight]["step"]
        == STEPS - progress.scaler_backoffs
    )
    assert progress.scaler_backoffs < STEPS

    stopped = trainer(tmp_path / "b", batches=ToyBatches(before=signal_at(2, 1)), **parts)
    with pytest.raises(Interrupted):
        stopped.fit()
    resumed = trainer(tmp_path / "b", **parts)
    resumed.load_state_dict(load_checkpoint(tmp_path / "b" / "last.pt"))
    resumed.fit()
    assert differences(whole.state_dict(), resumed.state_dict()) == []


@pytest.mark.parametrize(
    "error",
    [
        None,  # a CPU's own
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously ..."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_is_told_with_what_to_do(tmp_path: Path, error: RuntimeError | None) -> None:
    class Greedy(ToyNet):
        def forward(self, images: Tensor) -> Tensor:
            if error is None:
                return torch.empty(1 << 60)
            raise error

    run = trainer(tmp_path, model=Greedy())
    with pytest.raises(
        UserError, match="out of memory on cpu: make the micro-batch or the images smaller"
    ):
        run.fit()
    assert run.batches.closed == 1 and run.log.closed


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    class Wrong(ToyNet):
        def forward(self, images: Tensor) -> Tensor:
            return self.out(images)

    with pytest.raises(RuntimeError, match="shape") as caught:
        trainer(tmp_path, model=Wrong()).fit()
    assert not isinstance(caught.value, UserError)


# Evaluations, checkpoints, patience


def test_best_is_the_first_of_the_highest(tmp_path: Path) -> None:
    run = trainer(
        tmp_path, evaluate_every=1, evaluator=ToyEvaluator([0.1, 0.3, 0.2, 0.3, 0.0, 0.25])
    )
    progress = run.fit()
    assert (progress.best_figure, progress.best_step) == (0.3, 2)
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["progress"]["step"] == 2 and best["progress"]["figures"] == {"toy": 0.3}
    assert best["micro_batch_size"] == 2  # the metadata travels along
    last = load_checkpoint(tmp_path / "last.pt")
    assert Progress(**last["progress"]) == progress and progress.step == 6
    assert progress.figures == {"toy": 0.25} and progress.evaluations_since_best == 4
    assert run.log.said[-1] == f"best toy 0.3000 at step 2: {tmp_path / 'best.pt'}"


def test_a_figure_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    figures = [float("nan"), -1.0, float("nan"), 0.0, float("nan"), -2.0]
    run = trainer(tmp_path, evaluate_every=1, evaluator=ToyEvaluator(figures), steps=6)
    progress = run.fit()
    assert (progress.best_figure, progress.best_step) == (0.0, 4)
    assert load_checkpoint(tmp_path / "best.pt")["progress"]["step"] == 4
    run = trainer(tmp_path / "nan", evaluate_every=1, evaluator=ToyEvaluator(figures), steps=1)
    assert run.fit().best_figure is None and not (tmp_path / "nan" / "best.pt").exists()


@pytest.mark.parametrize(
    ("figures", "stops_at"),
    [([0.1, 0.3, 0.3, 0.2, 0.9, 0.9], 4), ([0.0] * 6, 3), ([1.0, 2, 3, 4, 5, 6], 6)],
)
def test_patience(tmp_path: Path, figures: list[float], stops_at: int) -> None:
    run = trainer(tmp_path, evaluate_every=1, evaluator=ToyEvaluator(figures), more={"patience": 2})
    assert run.fit().step == stops_at
    told = any("has not risen for 2 evaluations" in text for text in run.log.said)
    assert told == (stops_at < STEPS)
    again = trainer(tmp_path, evaluate_every=1, more={"patience": 2})
    again.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert again.fit().step == stops_at and again.log.trained == []


def test_the_training_ends_at_its_target_figure(tmp_path: Path) -> None:
    evaluator = ToyEvaluator([0.1, 0.9, 0.5, 0.95])
    run = trainer(tmp_path, evaluate_every=1, evaluator=evaluator, more={"target_figure": 0.9})
    assert run.fit().step == 2
    assert "stopped: toy 0.9000 has reached 0.9" in run.log.said
    again = trainer(tmp_path, evaluate_every=1, more={"target_figure": 0.9})
    again.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert again.fit().step == 2 and again.log.trained == []
    evaluator = ToyEvaluator([0.8, 0.8])
    assert trainer(tmp_path, evaluator=evaluator, more={"target_figure": 0.9}).fit().step == 6


def plateau() -> Plateau:
    return Plateau(factor=0.5, patience=0, threshold=0.0, min_factor=0.1)


def test_a_schedule_that_goes_by_the_figures_resumes_exactly(tmp_path: Path) -> None:
    """Without a better figure the rate is halved: after evaluations 2, 4 and 5."""
    figures = [0.3, 0.2, 0.4, 0.4, float("nan"), 0.1]
    parts = {"evaluate_every": 1}
    whole = trainer(tmp_path / "a", schedule=plateau(), evaluator=ToyEvaluator(figures), **parts)
    whole.fit()
    rates = [f["learning_rate"] / 0.01 for _, f in whole.log.trained]
    assert rates == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.125])
    for steps in (1, 2, 4):
        folder = tmp_path / str(steps)
        trainer(
            folder, schedule=plateau(), evaluator=ToyEvaluator(figures), **parts, steps=steps
        ).fit()
        rest = ToyEvaluator(figures[steps:])
        resumed = trainer(folder, schedule=plateau(), evaluator=rest, **parts)
        resumed.load_state_dict(load_checkpoint(folder / "last.pt"))
        resumed.fit()
        assert differences(whole.state_dict(), resumed.state_dict()) == [], steps


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [(3, 6, [3, 6]), (4, 6, [4, 6]), (100, 5, [5]), (1, 3, [1, 2, 3])],
)
def test_evaluated_when_due_and_once_at_the_end(tmp_path, every, steps, expected) -> None:
    run = trainer(tmp_path, evaluate_every=every, steps=steps)
    run.fit()
    assert run.log.evaluated == expected and len(run.evaluator.seen) == len(expected)


def test_evaluating_changes_nothing_in_the_training(tmp_path: Path) -> None:
    class Careless(ToyEvaluator):
        def evaluate(self, model, interrupted):
            torch.rand(100)  # draws from the generator that dropout uses
            model.eval()
            return super().evaluate(model, interrupted)

    often = trainer(tmp_path / "a", evaluator=Careless(), evaluate_every=1)
    rarely = trainer(tmp_path / "b", evaluate_every=100)
    often.fit()
    rarely.fit()
    for part in ("model", "optimizer"):
        assert differences(often.state_dict()[part], rarely.state_dict()[part]) == []


class SingleValue(ToyNet):
    """Its batch norm sees one number per channel, as at 32 px with one image."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images / 255).mean((2, 3), keepdim=True)
        return self.out(self.between(x).flatten(1))


def test_one_image_too_small_for_batch_norm_is_told(tmp_path: Path) -> None:
    run = trainer(tmp_path, model=SingleValue(), batches=ToyBatches(micro_batches=4))
    with pytest.raises(UserError, match="batch norm cannot learn from a single value per channel"):
        run.fit()
    assert run.batches.closed == 1 and run.log.closed
    assert trainer(tmp_path, model=SingleValue()).fit().step == STEPS  # two at a time


def test_the_log_and_the_lock_are_let_go_even_if_a_worker_does_not_end(tmp_path: Path) -> None:
    class Stuck(ToyBatches):
        def close(self) -> None:
            raise RuntimeError("it does not end")

    run = trainer(tmp_path, batches=Stuck())
    run._lock = RunLock(tmp_path)
    with pytest.raises(RuntimeError, match="it does not end"):
        run.fit()
    assert run.log.closed
    RunLock(tmp_path).release()
