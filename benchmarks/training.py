"""Training steps: what `precision: auto` gains over plain fp32, and what memory it needs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, Goal, Settings
from benchmarks.machine import has_amx
from benchmarks.memory import GB, in_fresh_process, peak_bytes
from benchmarks.timing import take_turns, wait_for
from yolo.config import REPOSITORY_ROOT, Config, load_config
from yolo.factory.detector import build_coder, build_detector, build_loss
from yolo.factory.learner import build_optimizer
from yolo.models.detector import Detector
from yolo.records import Batch, Sample
from yolo.train.distributed import keep_freed_memory
from yolo.train.precision import Precision, choose_precision

CLASSES = [f"class {number}" for number in range(80)]
BOXES_PER_IMAGE = 7
"""COCO's average."""

GPU_IMAGES = 64
MEMORY_STEPS = 3
FP32 = Precision("fp32")


@dataclass(frozen=True, kw_only=True)
class Training:
    """A detector and the size of its step.

    Attributes:
        config: its YAML, from the repository's root.
        image_size_px: of the network's input.
        images: of the step on a CPU.
        speedup_with_amx: the goal where the CPU has AMX; elsewhere it is not to be slower.
        peak_gb: the goal for the memory on a CPU; None to leave it unmeasured.
    """

    config: str
    image_size_px: int
    images: int
    speedup_with_amx: float = 1.0
    peak_gb: float | None = None

    def sized(self, settings: Settings) -> tuple[int, int]:
        """Images per step and their side in pixels."""
        if settings.tiny:
            return 2, 64
        images = GPU_IMAGES if settings.device.type == "cuda" else self.images
        return images, self.image_size_px


class Step:
    """An optimizer step on images that stay the same.

    Args:
        config: of the detector and its optimizer.
        detector: on its device.
        batch: on the same device.
        precision: of the forward pass.
        compiled: run the network by ``torch.compile``.
    """

    def __init__(
        self,
        *,
        config: Config,
        detector: Detector,
        batch: Batch,
        precision: Precision,
        compiled: bool = False,
    ) -> None:
        self.detector, self.batch, self.precision = detector.train(), batch, precision
        self.device = batch.images.device
        self.loss = build_loss(config, build_coder(config), CLASSES).to(self.device)
        self.optimizer = build_optimizer(config, detector)
        self.scaler = precision.scaler(self.device)
        if compiled:
            detector.compile()

    def __call__(self) -> None:
        with self.precision.autocast(self.device):
            outputs = self.detector(self.batch.images)
        terms = self.loss(outputs, self.batch.targets, len(self.batch))
        self.scaler.scale(torch.stack(list(terms.values())).sum()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        wait_for(self.device)


def measure_training(training: Training, settings: Settings) -> Iterator[Figure]:
    """Images per second of `auto` and of fp32 in contiguous memory; on a GPU also compiled."""
    config = read_config(training)
    images, size_px = training.sized(settings)
    _prepare_memory(settings.device)
    batch = random_batch(images, size_px).to(settings.device)
    auto = _choose(config, settings.device, images, size_px)
    steps = {
        "fp32": _step(config, batch, FP32, contiguous=True),
        "auto": _step(config, batch, auto),
    }
    if settings.device.type == "cuda":
        steps["compiled"] = _step(config, batch, auto, compiled=True)
    seconds = take_turns(steps, rounds=settings.rounds)
    labels = {
        "fp32": "fp32, contiguous",
        "auto": f"auto ({auto.name}), channels last",
        "compiled": f"auto ({auto.name}), channels last, compiled",
    }
    for name in steps:
        speed = images / seconds.median(name)
        yield Figure(f"{labels[name]}, {size_px} px, batch {images}", speed, "images/s")
    goal = _speedup_goal(training, settings)
    yield Figure("auto over fp32", seconds.speedup("auto", over="fp32"), "times", goal)
    if "compiled" in steps:
        compiled = seconds.speedup("compiled", over="fp32")
        yield Figure("auto compiled over fp32", compiled, "times")
    del steps
    gc.collect()
    yield from _memory(training, settings, auto)


def _memory(training: Training, settings: Settings, auto: Precision) -> Iterator[Figure]:
    """The peak of a process that does nothing else, with and without choosing the format."""
    if training.peak_gb is None:
        return
    on_cpu = settings.device.type == "cpu"
    goal = Goal("at most", training.peak_gb) if on_cpu and not settings.tiny else None
    what = "peak of a process" if on_cpu else "peak on the GPU"
    peak = in_fresh_process(peak_of_steps, training, settings, auto)
    yield Figure(f"{what}, {MEMORY_STEPS} steps in {auto.name}", peak / GB, "GB", goal)
    if on_cpu:
        peak = in_fresh_process(peak_of_steps, training, settings, None)
        yield Figure(f"{what} that chose the format before", peak / GB, "GB", goal)


def peak_of_steps(training: Training, settings: Settings, precision: Precision | None) -> int:
    """Train a few steps; on a GPU its memory counts, else this process's.

    Args:
        training, settings: what to train and where.
        precision: None chooses it here, as a training does.

    Returns:
        Bytes.
    """
    config = read_config(training)
    images, size_px = training.sized(settings)
    _prepare_memory(settings.device)
    batch = random_batch(images, size_px).to(settings.device)
    detector = build_detector(config, CLASSES).to(settings.device)
    if precision is None:
        precision = _choose_for(detector, settings.device, images, size_px)
    step = Step(config=config, detector=detector, batch=batch, precision=precision)
    for _ in range(MEMORY_STEPS):
        step()
    if settings.device.type == "cuda":
        return torch.cuda.max_memory_allocated(settings.device)
    return peak_bytes()


def _prepare_memory(device: torch.device) -> None:
    """As a training does; the contestants share the process, so that fp32 gains by it too."""
    if device.type == "cpu":
        keep_freed_memory()


def read_config(training: Training) -> Config:
    """The YAML's config, with random weights: nothing is to be downloaded."""
    overrides = ["model.encoder.weights=null"]
    return load_config(REPOSITORY_ROOT / training.config, overrides).config


def random_batch(images: int, size_px: int) -> Batch:
    """Noise with a few boxes in each image."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, size_px, (images, BOXES_PER_IMAGE, 2, 2))
    boxes = np.sort(corners, axis=2).reshape(images, BOXES_PER_IMAGE, 4)
    samples = [
        Sample(
            image=rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8),
            boxes_xyxy_px=boxes[number].astype(np.float32),
            labels=rng.integers(0, len(CLASSES), BOXES_PER_IMAGE),
            ignored=np.zeros(BOXES_PER_IMAGE, bool),
            image_id=number,
            original_size_hw=(size_px, size_px),
        )
        for number in range(images)
    ]
    return Batch.from_samples(samples)


def make_contiguous(detector: Detector) -> Detector:
    """Take a detector back from channels-last memory to PyTorch's own, weights and maps alike.

    Weights are copied: those of 1x1 convolutions count as contiguous already, but keep strides
    that lead a convolution to choose channels-last for its output.
    """
    for parameter in detector.parameters():
        parameter.data = torch.empty(parameter.shape, device=parameter.device).copy_(parameter)
    detector.normalise.register_forward_hook(_to_contiguous)
    return detector


def _to_contiguous(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    del module, args
    return output.contiguous()


def _step(
    config: Config,
    batch: Batch,
    precision: Precision,
    *,
    contiguous: bool = False,
    compiled: bool = False,
) -> Step:
    detector = build_detector(config, CLASSES).to(batch.images.device)
    if contiguous:
        make_contiguous(detector)
    return Step(
        config=config, detector=detector, batch=batch, precision=precision, compiled=compiled
    )


def _choose(config: Config, device: torch.device, images: int, size_px: int) -> Precision:
    return _choose_for(build_detector(config, CLASSES).to(device), device, images, size_px)


def _choose_for(detector: Detector, device: torch.device, images: int, size_px: int) -> Precision:
    return choose_precision("auto", model=detector, device=device, images=images, size_px=size_px)


def _speedup_goal(training: Training, settings: Settings) -> Goal | None:
    if settings.tiny:
        return None
    amx = settings.device.type == "cpu" and has_amx()
    return Goal("at least", training.speedup_with_amx if amx else 1.0)
