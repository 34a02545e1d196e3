"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

FLAGS = ("amx_bf16", "avx512_bf16")
"""What a CPU needs for native bf16; either will do."""


def describe(device: torch.device) -> list[str]:
    """The machine in a few lines."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    lines = [
        f"CPU: {_cpu()}, {_cores()} cores; {', '.join(_flags()) or 'no native bf16'}",
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"{torch.get_num_threads()} threads",
        f"load before the start: {load:.1f} (0 is an idle machine)",
    ]
    if device.type == "cuda":
        lines.insert(1, f"GPU: {torch.cuda.get_device_name(device)}")
    return lines


def has_amx() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware tiles."""
    return torch.cpu._is_amx_tile_supported()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _flags() -> list[str]:
    there = _cpuinfo().get("flags", "").split()
    return [flag for flag in FLAGS if flag in there]


def _cpuinfo() -> dict[str, str]:
    """The first core's entries; empty where the system does not list them."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    pairs = (text.partition(":") for text in path.read_text().split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
