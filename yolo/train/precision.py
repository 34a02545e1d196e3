"""Number formats: which one is fastest on this device for this model, and its autocast."""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

TIMED_PIXELS = 4 * 416 * 416
"""Most that a timed batch holds: enough to keep a CPU busy. Half a micro-batch at most, so that its
fp32 activations need no more memory than the training's bf16 ones, but two images."""

WARM_UP_SECONDS = 3.0
"""The C library's allocator takes some rounds to learn how large tensors are."""

TIMED_SECONDS = 15.0
"""After so long no further round begins."""

WORTHWHILE = 1.1
"""How much faster bf16 must prove: below it is the noise of a busy machine."""

Format = Literal["fp32", "bf16", "fp16"]

_DTYPES: dict[Format, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Precision:
    """A number format and why it was chosen.

    Attributes:
        name: ``fp32``, ``bf16`` or ``fp16``.
        reason: for the log.
    """

    name: Format
    reason: str = "as configured"

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The context for the network's forward pass; does nothing for fp32."""
        return torch.autocast(device.type, _DTYPES[self.name], enabled=self.name != "fp32")

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """The gradient scaler; does nothing unless fp16."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "fp16")


def choose_precision(
    setting: Literal["auto", "fp32", "bf16", "fp16"],
    *,
    model: nn.Module,
    device: torch.device,
    images: int,
    size_px: int,
) -> Precision:
    """The configured format, or for ``auto`` the fastest.

    On CUDA by rule: bf16 from Ampere on, fp16 before. On a CPU that computes bf16 natively it
    depends on the model (plain convolutions gain, the backward pass of depthwise ones loses),
    so a few training steps in each format are timed on a copy of the model.

    Args:
        setting: the config's value.
        model: takes uint8 (B, 3, S, S), returns tensors.
        device: where it will train.
        images, size_px: the micro-batch and input size of the training.
    """
    if setting != "auto":
        return Precision(setting)
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return Precision("bf16", "this GPU computes it natively")
        return Precision("fp16", "this GPU computes it natively and has no native bf16")
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return Precision("fp32", "this CPU has no native bf16 (AMX or AVX512-bf16)")
    least = min(images, 2)  # batch norm refuses one image where the last map is a single cell
    images = max(least, min(images // 2, TIMED_PIXELS // size_px**2))
    seconds = _time_training(model, ("fp32", "bf16"), images=images, size_px=size_px)
    ratio = seconds["fp32"] / seconds["bf16"]
    name: Format = "bf16" if ratio > WORTHWHILE else "fp32"
    return Precision(name, f"measured: bf16 trains {ratio:.2f} times as fast as fp32 here")


def _time_training(
    model: nn.Module, formats: tuple[Format, ...], *, images: int, size_px: int
) -> dict[Format, float]:
    """Least seconds of a forward and backward pass, the formats taking turns.

    Rounds of the first seconds warm up and then five count; one and one where they take long. The
    model given stays as it is.
    """
    model = copy.deepcopy(model).train()
    start = time.perf_counter()
    counted: list[list[float]] = []
    with torch.random.fork_rng(devices=[]):
        batch = torch.randint(0, 256, (images, 3, size_px, size_px), dtype=torch.uint8)
        batch = batch.to(memory_format=torch.channels_last)
        while (elapsed := time.perf_counter() - start) < WARM_UP_SECONDS:
            for name in formats:
                _time_pass(model, batch, name)
        while not counted or (len(counted) < 5 and elapsed < TIMED_SECONDS):
            counted.append([_time_pass(model, batch, name) for name in formats])
            elapsed = time.perf_counter() - start
    return dict(zip(formats, map(min, zip(*counted, strict=True)), strict=True))


def _time_pass(model: nn.Module, batch: torch.Tensor, name: Format) -> float:
    """Seconds of one forward and backward pass on the CPU."""
    start = time.perf_counter()
    with Precision(name).autocast(torch.device("cpu")):
        outputs = model(batch)
    sum(output.float().square().mean() for output in outputs).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start
