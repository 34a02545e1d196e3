"""A network, a loss, batches and an evaluator that know no detection, and their training."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.detection.losses.cases import make_targets
from tests.detectors import ONE_RANK
from yolo.records import Batch, Targets
from yolo.train.checkpoint import load_checkpoint
from yolo.train.distributed import Ranks
from yolo.train.interruption import Interruption
from yolo.train.learner import Learner
from yolo.train.log import RunLog
from yolo.train.optimizers import adam
from yolo.train.precision import Precision
from yolo.train.progress import Evaluation, Plan
from yolo.train.trainer import Trainer

STEPS, IMAGES = 6, 4


class ToyNet(nn.Module):
    """Everything that a resumed run can get wrong: batch norm's statistics and dropout's chance."""

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.conv = nn.Conv2d(3, 6, 3)
        self.between = nn.Sequential(*(() if plain else (nn.BatchNorm2d(6), nn.Dropout(0.3))))
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
        norm = nn.Identity if plain else nn.BatchNorm2d
        self.encoder.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, 6, 3, bias=plain), norm(6)) for a in (3, 6)
        )
        self.norm = norm(6)
        self.out = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.out.weight.dtype) / 255
        for stage in self.encoder.stages:
            x = stage(x).relu()
        return self.out(self.norm(x).mean((2, 3)))


class ToyLoss(nn.Module):
    """Squared distance of the 4 outputs from an image's one box, as two terms."""

    def __init__(
        self,
        change: Callable[[dict[str, Tensor], int], dict[str, Tensor]] = lambda terms, call: terms,
    ) -> None:
        super().__init__()
        self._change = change  # of the terms of a call, counted from 1
        self.images_seen: list[int | None] = []

    def forward(
        self, outputs: Tensor, targets: Targets, images_in_step: int, images_seen: int | None = None
    ) -> dict[str, Tensor]:
        self.images_seen.append(images_seen)
        wanted = targets.boxes_cxcywh_norm.to(torch.promote_types(outputs.dtype, torch.float32))
        distance = (outputs.to(wanted.dtype) - wanted).square().sum(0) / images_in_step  # (4,)
        terms = {"xy": distance[:2].sum(), "wh": distance[2:].sum()}
        return self._change(terms, len(self.images_seen))


def toy_image(step: int, place: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + place)
    pixels = torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8)
    return pixels, torch.rand(4, generator=generator)


def toy_batch(step: int, places: range) -> Batch:
    images, boxes = zip(*(toy_image(step, place) for place in places), strict=True)
    targets = make_targets([(i, *box.tolist(), 0) for i, box in enumerate(boxes)])
    pixels = torch.stack(images).contiguous(memory_format=torch.channels_last)
    return Batch(pixels, targets, torch.tensor(places), torch.full((len(places), 2), 8))


class ToyBatches:
    """The same images in a step, however many micro-batches and ranks share them."""

    def __init__(
        self,
        *,
        micro_batches: int = 2,
        ranks: Ranks = ONE_RANK,
        before: Callable[[int, int], object] = lambda step, index: None,
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
        self, figures: list[float | None] | None = None, before: Callable[[], None] = lambda: None
    ) -> None:
        self._figures, self._before = figures, before
        self.seen: list[dict[str, Tensor]] = []

    def evaluate(self, model: nn.Module, interruption: Interruption) -> Evaluation | None:
        self._before()
        if interruption():
            return None
        state = {name: value.clone() for name, value in model.state_dict().items()}
        self.seen.append(state)
        figure: float | None = -sum(v.double().abs().sum().item() for v in state.values())
        if self._figures is not None:
            figure = self._figures[len(self.seen) - 1]
        return Evaluation(
            figure=figure,
            figures={"toy": -1 if figure is None else figure},
            images_per_second=1.0,
            text="a table",
            headline="toy",
        )


class Notes(RunLog):
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.trained: list[tuple[int, dict[str, float]]] = []
        self.evaluated: list[int] = []
        self.closed = False

    def message(self, text: str) -> None:
        self.messages.append(text)

    def training(self, step, figures, *, seconds_left) -> None:
        self.trained.append((step, dict(figures)))

    def evaluation(self, step, figures, pictures) -> None:
        self.evaluated.append(step)

    def close(self) -> None:
        self.closed = True


DEFAULTS = {
    "steps": STEPS,
    "evaluate_every": 3,
    "checkpoint_every": 2,
    "log_every": 1,
    "images_in_step": IMAGES,
    "ema_decay": 0.9,
    "seed": 5,
    "schedule": lambda step: 1 / (1 + step),
    "precision": Precision("fp32"),
    "ranks": ONE_RANK,
}


def trainer(folder: Path, *, resuming: bool = False, **changes) -> Trainer:
    """A training whose parts and numbers a test replaces; or one that goes on from ``last.pt``."""
    folder.mkdir(exist_ok=True)
    model = changes.pop("model", None) or ToyNet()
    parts = {
        "loss": ToyLoss(),
        "optimizer": adam(model, learning_rate=0.01, weight_decay=0.01),
        "batches": ToyBatches(),
        "evaluator": ToyEvaluator(),
        "log": Notes(),
        "metadata": {"micro_batch_size": 2, "image_size_px": 8},
        **DEFAULTS,
        **changes,
    }
    ranks = parts["ranks"]
    plan, learner = (
        kind(**{name: parts.pop(name) for name in signature(kind).parameters if name in parts})
        for kind in (Plan, partial(Learner, model=model))
    )
    run = Trainer(learner=learner, plan=plan, ranks=ranks, folder=folder, **parts)
    if resuming:
        run.load_state_dict(load_checkpoint(folder / "last.pt"))
    return run


def fit(folder: Path, **changes) -> Trainer:
    """A training that has come to its end."""
    run = trainer(folder, **changes)
    run.fit()
    return run


def quickstart(folder: Path, **changes: dict[str, Any]) -> list[str]:
    """main.py's arguments for the quickstart with few, small images; ``changes`` by section."""
    data = {"image_size": 64, "workers": 0}
    for split, images in {"train": 8, "val": 4, "test": 4}.items():
        data |= {f"{split}.images": images, f"{split}.root": folder / "shapes"}
    sections = {
        "model": {"encoder.width": 0.125},
        "data": data,
        "training": {"batch_size": 4, "micro_batch_size": 4, "precision": "fp32"},
        "evaluation": {"every": 2, "pictures": 0},
        "logging": {"every": 1, "directory": folder},
    }
    return [
        "--gpu=cpu",
        *(
            f"{section}.{key}={value}"
            for section, settings in sections.items()
            for key, value in {**settings, **changes.get(section, {})}.items()
        ),
    ]


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two checkpoints are not the same to the last bit; NaN is the same as NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and _bits(a) == _bits(b)
        return [] if same else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d
            for i, pair in enumerate(zip(a, b, strict=True))
            for d in differences(*pair, f"{where}[{i}]")
        ]
    return [] if repr(a) == repr(b) else [f"{where}: {a} != {b}"]


def _bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def at(step: int, index: int, act: Callable[[], object]) -> Callable[[int, int], object]:
    """What happens while this micro-batch is being fetched."""
    return lambda *place: act() if place == (step, index) else None


def signal_at(step: int, index: int) -> Callable[[int, int], object]:
    return at(step, index, partial(signal.raise_signal, signal.SIGTERM))


def toy_accuracy(outputs: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Images whose first pixel is bright, of all; and one that never has anything to count."""
    assert not torch.is_grad_enabled()
    bright = targets.boxes_cxcywh_norm[:, 0] > 0.5
    return {
        "bright": torch.stack([bright.sum(), torch.tensor(len(outputs))]),
        "never": torch.zeros(2),
    }


def spoil(step: int) -> Callable[[int, int, Batch], Batch]:
    """A box that is no number in the first micro-batch of a step."""

    def change(at_step: int, index: int, batch: Batch) -> Batch:
        if (at_step, index) == (step, 0):
            batch.targets.boxes_cxcywh_norm[0, 0] = torch.nan
        return batch

    return change
