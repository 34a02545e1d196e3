"""Number formats: which one is fastest on this device for this model, and its autocast."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

WARM_UP_SECONDS = 3.0  # the C library's allocator takes some rounds to learn how large tensors are
TIMED_SECONDS = 15.0  # after so long no further round begins
ROUNDS = 5
WORTHWHILE = 1.1  # how much faster bf16 must prove: below it is the noise of a busy machine

Format = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Format, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Precision:
    """A number format, and why it was chosen."""

    name: Format
    reason: str = "as configured"

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The context for the network's forward pass; does nothing for fp32."""
        return torch.autocast(device.type, DTYPES[self.name], enabled=self.name != "fp32")

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """The gradient scaler; does nothing unless fp16."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "fp16")


def choose_precision(
    setting: Literal["auto"] | Format,
    *,
    model: nn.Module,
    device: torch.device,
    images: int,
    size_px: int,
) -> Precision:
    """The configured format, or for ``auto`` the fastest.

    On a CPU that computes bf16 natively it depends on the model (plain convolutions gain, the
    backward pass of depthwise ones loses), so a few training steps are timed on a copy of it.

    Args:
        model: takes uint8 (B, 3, S, S), returns tensors; stays as it is.
        images, size_px: micro-batch and input size of the training.
    """
    by_rule = precision_by_rule(setting, device)
    if by_rule is not None:
        return by_rule
    # Four images of 416 px keep a CPU busy. Of half a micro-batch the fp32 activations need no more
    # memory than the training's bf16 ones. Batch norm refuses one image where the last map is a
    # single cell.
    images = max(min(images, 2), min(images // 2, 4 * 416**2 // size_px**2))
    model = copy.deepcopy(model).train()

    def train(name: Format) -> None:
        with Precision(name).autocast(device):
            outputs = model(batch)
        sum(output.float().square().mean() for output in outputs).backward()
        model.zero_grad(set_to_none=True)

    with torch.random.fork_rng(devices=[]):
        batch = torch.randint(0, 256, (images, 3, size_px, size_px), dtype=torch.uint8)
        batch = batch.to(memory_format=torch.channels_last)
        return faster_format(
            train, "trains", warm_up_seconds=WARM_UP_SECONDS, timed_seconds=TIMED_SECONDS
        )


def precision_by_rule(setting: Literal["auto"] | Format, device: torch.device) -> Precision | None:
    """What is configured, or what ``auto`` means without measuring; None where one has to."""
    if setting != "auto":
        return Precision(setting)
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return Precision("bf16", "this GPU computes it natively")
        return Precision("fp16", "this GPU computes it natively and has no native bf16")
    if device.type == "mps":
        return Precision("fp32", "no shorter format has been tried on this device")
    if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
        return None
    return Precision("fp32", "this CPU has no native bf16 (AMX or AVX512-bf16)")


def faster_format(
    run: Callable[[Format], object], verb: str, *, warm_up_seconds: float, timed_seconds: float
) -> Precision:
    """bf16 if ``run`` takes clearly less time in it on this CPU, else fp32.

    The formats take turns. Rounds of the first seconds warm up and then five count; one and one
    where they take long. The reason has the verb for what ``run`` does.
    """
    start = time.perf_counter()
    rounds: list[tuple[float, float]] = []
    while (elapsed := time.perf_counter() - start) < warm_up_seconds:
        _seconds_of(run, "fp32"), _seconds_of(run, "bf16")
    while not rounds or (len(rounds) < ROUNDS and elapsed < timed_seconds):
        rounds.append((_seconds_of(run, "fp32"), _seconds_of(run, "bf16")))
        elapsed = time.perf_counter() - start
    fp32, bf16 = map(min, zip(*rounds, strict=True))
    name: Format = "bf16" if fp32 / bf16 > WORTHWHILE else "fp32"
    return Precision(name, f"measured: bf16 {verb} {fp32 / bf16:.2f} times as fast as fp32 here")


def _seconds_of(run: Callable[[Format], object], name: Format) -> float:
    start = time.perf_counter()
    run(name)
    return time.perf_counter() - start
