"""Where a device's time goes: its kernels by kind, from PyTorch's profiler."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import wait_for

KINDS = {
    "layout changes": r"nchwtonhwc|nhwctonchw|transpose|permute",
    "copies": r"memcpy|memset|copy",
    "convolutions": r"conv|xmma|cutlass|gemm|wgrad|dgrad|fprop|cudnn.*engine|addmm",
    "batch norm": r"batch_?norm|bn_",
    "optimizer, average, norm": r"multi_tensor_apply|fused_adam|fused_sgd|foreach|lerp",
    "sums": r"reduce|sum|softmax",
    "indices, sorting": r"index|scatter|gather|sort|radix|searchsorted|arange|where",
    "elementwise": r"elementwise|leaky|vectorized|unrolled|triton|mul|add|sigmoid|fill|cat",
}
"""Of a kernel's name in lower case; the first that fits."""

OTHERS = "others"
MOST_ROWS = 60


@dataclass
class KernelTimes:
    """Seconds on the device of one step."""

    by_name: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def busy_s(self) -> float:
        """Of all kernels; one at a time runs, in one stream."""
        return sum(self.by_name.values())

    def by_kind(self) -> dict[str, float]:
        """Seconds of each kind, the largest first."""
        kinds: Counter[str] = Counter()
        for name, seconds in self.by_name.items():
            kinds[kind_of(name)] += seconds
        return dict(kinds.most_common())

    def table(self) -> str:
        """The kernels that take longest, a line each."""
        lines = [f"{'ms/step':>9} {'share':>6} {'calls':>7}  kind: kernel"]
        for name, seconds in self.by_name.most_common(MOST_ROWS):
            share = seconds / self.busy_s
            calls = self.calls[name]
            lines.append(
                f"{1e3 * seconds:9.3f} {share:6.1%} {calls:7}  {kind_of(name)}: {name[:150]}"
            )
        return "\n".join([*lines, ""])


def kind_of(name: str) -> str:
    found = (kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower()))
    return next(found, OTHERS)


def profile_steps(step: Callable[[], object], device: torch.device, *, steps: int) -> KernelTimes:
    """The kernels of a step, the mean of several; on a CPU its operations.

    Args:
        step: one step; the device is waited for after the last.
        device: where it computes.
        steps: how many are looked at.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        wait_for(device)
    times = KernelTimes()
    for event in profiler.events() or ():
        if _is_work(event, on_gpu=on_gpu):
            microseconds = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            times.by_name[event.name] += microseconds / 1e6 / steps
            times.calls[event.name] += 1
    for name in times.calls:
        times.calls[name] = -(-times.calls[name] // steps)
    return times


def _is_work(event: FunctionEvent, *, on_gpu: bool) -> bool:
    """Whether it is a kernel, and no name for several of them, such as "Optimizer.step#Adam"."""
    is_of_gpu = event.device_type == torch.autograd.DeviceType.CUDA
    is_name = getattr(event, "is_user_annotation", False) or "#" in event.name
    return is_of_gpu == on_gpu and not is_name


def write_table(path: Path, title: str, times: KernelTimes) -> None:
    """Append the kernels of one network to a file."""
    with path.open("a") as file:
        file.write(f"{title}: {1e3 * times.busy_s:.2f} ms of kernels in a step\n{times.table()}\n")
