"""What a GPU gives: steps and their floor, where the time goes, memory, evaluation, the loader."""

from __future__ import annotations

import gc
import itertools
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.detection import measure_network
from benchmarks.figures import Figure, Goal, Settings
from benchmarks.kernels import profile_steps, write_table
from benchmarks.loader import image_paths, lacks_images
from benchmarks.memory import GB, peak_bytes
from benchmarks.timing import take_turns, wait_for
from benchmarks.training import CLASSES, random_batch
from yolo.config import REPOSITORY_ROOT, Config, load_config
from yolo.errors import UserError
from yolo.factory.data import build_dataset, build_training_batches
from yolo.factory.detector import build_coder, build_detector, build_loss
from yolo.factory.evaluator import accuracy_of
from yolo.factory.learner import build_optimizer
from yolo.models.summary import dry_run
from yolo.records import Batch
from yolo.train.distributed import Ranks
from yolo.train.learner import Learner
from yolo.train.precision import DTYPES, Precision, choose_precision
from yolo.train.progress import Window

STEPS_IN_A_ROUND = 10
PROFILED_STEPS = 3
LEAST_SHARE = 0.001  # of the kernels' time, for a kind to be told
LATE_STEP = 50_000  # after all warm-ups, YOLOv2's too
COPIES_OF_IMAGES = 200
LOADER_STEPS, LOADER_WARM_UP_STEPS = 30, 12

GPU_OF_THE_GOALS = "H200"
STEP_SPEED, EVALUATION_SPEED = Goal("at least", 1770), Goal("at least", 2500)
LOADER_SHARE, PEAK_GB = Goal("at least", 90), Goal("at most", 24)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A detector and its step: the YAML, the side of the input, images at once."""

    name: str
    config: str
    size_px: int
    images: int = 64
    compile_modes: tuple[str, ...] = ("default",)

    def sized(self, settings: Settings) -> Network:
        return replace(self, size_px=64, images=2) if settings.tiny else self

    def __str__(self) -> str:
        return f"{self.name}, {self.size_px} px, batch {self.images}"


DARKNET = Network(name="darknet53", config="yolov3/darknet53_coco", size_px=416)
NETWORKS = (
    DARKNET,
    replace(DARKNET, size_px=608, images=32, compile_modes=()),
    Network(name="mobilenet_v3_large", config="yolov3/mobilenet_v3_large_coco", size_px=416),
    Network(
        name="quickstart",
        config="quickstart",
        size_px=224,
        compile_modes=("default", "reduce-overhead"),  # the latter with CUDA graphs
    ),
)


def lacks_gpu(settings: Settings) -> str | None:
    """The sentence for a machine without a GPU."""
    if settings.device.type == "cuda" or settings.tiny:
        return None
    return "there is no GPU, or another device was chosen; --tiny tries the case on a CPU"


def measure_gpu(settings: Settings) -> Iterator[Figure]:
    """All of it; a part that fails is told and left out, for a GPU may be lent for minutes.

    Raises:
        UserError: at the end, if any part failed.
    """
    rates = measure_rates(settings)
    yield from rates.figures()
    networks = NETWORKS[-1:] if settings.tiny else NETWORKS
    parts: list[Callable[[], Iterator[Figure]]] = [
        *(lambda network=network: _steps(network, settings, rates) for network in networks),
        lambda: _evaluation(networks[0], settings),
        lambda: _loader(networks[0], settings),
        *(lambda network=network: _compiled(network, settings) for network in reversed(networks)),
    ]
    failed: list[str] = []
    for part in parts:
        try:
            yield from part()
        except Exception as error:
            traceback.print_exc()
            failed.append(f"{type(error).__name__} {str(error)[:100]}")
        _free_memory(settings.device)
    if failed:
        raise UserError(f"gpu: {len(failed)} of {len(parts)} parts failed: {'; '.join(failed)}")


# The floor


@dataclass(frozen=True)
class Rates:
    """What the device reaches in large products of matrices, and in copies within its memory."""

    precision: Precision
    flops_per_s: float
    bytes_per_s: float

    def figures(self) -> Iterator[Figure]:
        yield Figure(f"matrix product in {self.precision.name}", self.flops_per_s / 1e12, "TFLOP/s")
        yield Figure("copy in memory, read and written", self.bytes_per_s / GB, "GB/s")

    def floor_s(self, learner: Learner, network: Network) -> float:
        """Seconds that a step cannot do without, its two parts one after the other.

        That is three products for each convolution at the rate of large ones, and each number that
        the backward pass needs written and read once; of each weight, Adam and the average read
        and write ten numbers.
        """
        summary = dry_run(learner.model, network.size_px)
        flops = 3 * 2 * summary.multiply_adds * network.images
        number_bytes = DTYPES[self.precision.name].itemsize
        activation_bytes = summary.activation_bytes / 4 * number_bytes * network.images
        moved = 2 * activation_bytes + 10 * 4 * summary.parameters
        return flops / self.flops_per_s + moved / self.bytes_per_s


def measure_rates(settings: Settings) -> Rates:
    """Of the format that ``precision: auto`` means here."""
    side, numbers = (256, 10**6) if settings.tiny else (8192, 2**29)
    precision = _auto(settings, torch.nn.Conv2d(3, 8, 3))
    # of random numbers: ones cost less power, so that a GPU runs faster on them
    a, b = (
        torch.randn(side, side, device=settings.device).to(DTYPES[precision.name]) for _ in range(2)
    )
    source = torch.ones(numbers, dtype=torch.uint8, device=settings.device)
    target = torch.empty_like(source)
    work = {"product": lambda: a @ b, "copy": lambda: target.copy_(source)}
    repeats = 1 if settings.tiny else 20

    def repeated(call: Callable[[], object]) -> None:
        for _ in range(repeats):
            call()
        wait_for(settings.device)

    contestants = {name: lambda call=call: repeated(call) for name, call in work.items()}
    rounds = take_turns(contestants, rounds=settings.rounds)
    flops = 2 * side**3 * repeats / rounds.median("product")
    return Rates(precision, flops, 2 * numbers * repeats / rounds.median("copy"))


# The step


def _steps(network: Network, settings: Settings, rates: Rates) -> Iterator[Figure]:
    """Speed beside the floor, memory, and what the kernels do."""
    network = network.sized(settings)
    learner, batch = _make_learner(network, settings), _make_batch(network, settings)
    form, is_goal = learner.precision.name, _is_goal(settings) and network == DARKNET
    _run(learner, batch, 2, settings)  # finds algorithms, fills the allocator
    if settings.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(settings.device)
    seconds = _seconds_per_step(learner, batch, settings)
    speed = network.images / seconds
    yield Figure(f"{network}, {form}", speed, "images/s", STEP_SPEED if is_goal else None)
    floor = rates.floor_s(learner, network)
    yield Figure(f"{network}: floor", network.images / floor, "images/s")
    yield Figure(f"{network}: of the floor's speed", 100 * floor / seconds, "%")
    peak = (
        torch.cuda.max_memory_allocated(settings.device)
        if settings.device.type == "cuda"
        else peak_bytes()
    )
    yield Figure(f"{network}: peak memory", peak / GB, "GB", PEAK_GB if is_goal else None)
    steps = itertools.count(LATE_STEP)
    times = profile_steps(
        lambda: learner.step(next(steps), iter([batch]), 1), settings.device, steps=PROFILED_STEPS
    )
    if settings.device.type == "cuda":
        waits = max(0.0, 1 - times.busy_s / seconds)
        yield Figure(f"{network}: share of the step that the GPU waits", 100 * waits, "%")
    for kind, spent in times.by_kind().items():
        if spent > LEAST_SHARE * times.busy_s:
            yield Figure(f"{network}: kernels: {kind}", 100 * spent / times.busy_s, "%")
    if settings.kernels is not None:
        write_table(settings.kernels, f"{network}, {form}", times)
    with _benchmarking():
        _run(learner, batch, 2, settings)
        tried = network.images / _seconds_per_step(learner, batch, settings)
    yield Figure(f"{network}, {form}, with cudnn.benchmark", tried, "images/s")


def _compiled(network: Network, settings: Settings) -> Iterator[Figure]:
    """The same under torch.compile, and the seconds until the first step is done."""
    network = network.sized(settings)
    for mode in network.compile_modes:
        torch.compiler.reset()
        learner, batch = _make_learner(network, settings), _make_batch(network, settings)
        # a CPU only tries that it runs
        how: dict[str, Any] = {"backend": "eager"} if settings.tiny else {"mode": mode}
        learner.model.compile(**how)
        start = time.perf_counter()
        _run(learner, batch, 3, settings)
        label = f"{network}, {learner.precision.name}, compiled ({mode})"
        yield Figure(f"{label}: first steps", time.perf_counter() - start, "s")
        speed = network.images / _seconds_per_step(learner, batch, settings)
        yield Figure(label, speed, "images/s")
        del learner, batch
        _free_memory(settings.device)


def _make_learner(network: Network, settings: Settings) -> Learner:
    """All that a training's step does: clipping apart, Adam, the average, the grid's accuracy."""
    config = _read_config(network)
    detector = build_detector(config, CLASSES).to(settings.device)
    loss = build_loss(config, build_coder(config), CLASSES).to(settings.device)
    return Learner(
        model=detector,
        loss=loss,
        optimizer=build_optimizer(config, detector),
        schedule=lambda step: 1e-3,
        precision=_auto(settings, detector, network),
        ranks=_ranks(settings),
        images_in_step=network.images,
        ema_decay=0.999,
        accuracy=accuracy_of(loss),
    )


def _read_config(network: Network, *overrides: str) -> Config:
    path = REPOSITORY_ROOT / "configs" / f"{network.config}.yaml"
    config = load_config(path, ["model.encoder.weights=null", *overrides]).config
    assert isinstance(config, Config)
    return config


def _auto(settings: Settings, model: torch.nn.Module, network: Network = DARKNET) -> Precision:
    """What ``precision: auto`` means; at tiny sizes fp32, for measuring it takes seconds."""
    if settings.tiny and settings.device.type == "cpu":
        return Precision("fp32")
    return choose_precision(
        "auto",
        model=model,
        device=settings.device,
        images=network.images,
        size_px=network.size_px,
    )


def _ranks(settings: Settings) -> Ranks:
    return Ranks(rank=0, world_size=1, device=settings.device)


def _make_batch(network: Network, settings: Settings) -> Batch:
    """Noise in page-locked memory, as the loader gives it."""
    batch = random_batch(network.images, network.size_px)
    return batch.pin_memory() if settings.device.type == "cuda" else batch


def _run(learner: Learner, batch: Batch, steps: int, settings: Settings) -> None:
    for step in range(LATE_STEP, LATE_STEP + steps):
        learner.step(step, iter([batch]), 1)
    wait_for(settings.device)


def _seconds_per_step(learner: Learner, batch: Batch, settings: Settings) -> float:
    steps = 1 if settings.tiny else STEPS_IN_A_ROUND
    work = {"step": lambda: _run(learner, batch, steps, settings)}
    return take_turns(work, rounds=settings.rounds).median("step") / steps


# Evaluation and loader


def _evaluation(network: Network, settings: Settings) -> Iterator[Figure]:
    """The network alone, and with decoding and suppression of up to 1,000 boxes per image."""
    for figure in measure_network(network.config, _read_config(network), settings):
        is_goal = _is_goal(settings) and "NMS" in figure.name
        yield replace(figure, goal=EVALUATION_SPEED if is_goal else None)


def _loader(network: Network, settings: Settings) -> Iterator[Figure]:
    """The loader alone, and a training with it, on real images that come again and again."""
    if lack := lacks_images(settings):
        print(f"gpu: the loader is left out, for {lack}", file=sys.stderr, flush=True)
        return
    network = network.sized(settings)
    annotations, images = image_paths(settings.data)
    config = _read_config(
        network,
        *(f"data.{split}={{type: coco, annotations: {annotations}, images: {images}}}"
          for split in ("train", "val")),
        f"data.image_size={network.size_px}",
        f"training.batch_size={network.images}",
        f"training.micro_batch_size={network.images}",
    )  # fmt: skip
    few = build_dataset(config, "train")
    dataset = few.select(np.tile(np.arange(len(few)), COPIES_OF_IMAGES))
    batches = build_training_batches(config, dataset, _ranks(settings))
    learner = _make_learner(network, settings)
    warm_up, steps = (1, 2) if settings.tiny else (LOADER_WARM_UP_STEPS, LOADER_STEPS)
    stream = batches.from_step(0)
    try:
        alone = network.images / _seconds_each(lambda: next(stream), warm_up, steps)
        yield Figure(f"loader alone, {network.size_px} px", alone, "images/s")
        numbers, window = itertools.count(LATE_STEP), Window()

        def step() -> None:
            learner.step(next(numbers), window.fetch(stream, 1), 1)

        seconds = _seconds_each(step, warm_up, steps, lambda: wait_for(settings.device))
        yield Figure(f"{network}, training with the loader", network.images / seconds, "images/s")
        waited = window.figures(learner.ranks)["data_wait_share"]
        yield Figure(f"{network}: share of the time that training waits for it", 100 * waited, "%")
        batch = _make_batch(network, settings)
        share = 100 * _seconds_per_step(learner, batch, settings) / seconds
        goal = LOADER_SHARE if _is_goal(settings) and network == DARKNET else None
        yield Figure(f"{network}: of the speed without a loader", share, "%", goal)
    finally:
        batches.close()


def _seconds_each(
    work: Callable[[], object],
    warm_up: int,
    count: int,
    end: Callable[[], object] = lambda: None,
) -> float:
    for _ in range(warm_up):
        work()
    end()
    start = time.perf_counter()
    for _ in range(count):
        work()
    end()
    return (time.perf_counter() - start) / count


def _is_goal(settings: Settings) -> bool:
    """Whether the figures are those of the GPU that the goals are for."""
    if settings.tiny or settings.device.type != "cuda":
        return False
    return GPU_OF_THE_GOALS in torch.cuda.get_device_name(settings.device)


def _free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def _benchmarking() -> Iterator[None]:
    """Let cuDNN try its algorithms for each shape; a training leaves it off, to repeat exactly."""
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False
