"""How much memory a step takes and how much disk the checkpoints, and what there is of both."""

from __future__ import annotations

import math
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from yolo.apps.preflight.rehearsal import Rehearsal, resized
from yolo.data.machine_memory import memory_bytes

LONGEST_STEP_SECONDS = 20.0
"""A step at the largest size that would take longer on a CPU is not taken."""

COPIES_ON_DISK = 3
"""last.pt, best.pt and the one that is being written."""

GIGABYTE = 1e9


def memory_gb(rehearsal: Rehearsal, largest_px: int, seconds_per_image: float) -> float | None:
    """Most memory in use since a step of the whole micro-batch at the largest size began.

    Of a CPU it is the process' peak so far. None where that step would take too long.
    """
    batch, device = rehearsal.batch, rehearsal.device
    seconds = len(batch) * seconds_per_image * (largest_px / batch.images.shape[-1]) ** 2
    if seconds > LONGEST_STEP_SECONDS and device.type == "cpu":
        return None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rehearsal.step(resized(batch, largest_px))
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / GIGABYTE
    unit = 1 if sys.platform == "darwin" else 1024  # of getrusage
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIGABYTE


def total_gb(device: torch.device) -> float:
    """All memory of the GPU, or of the machine; infinite where it does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / GIGABYTE
    return (memory_bytes() or math.inf) / GIGABYTE


def checkpoint_gb(rehearsal: Rehearsal) -> float:
    """What the checkpoints of a run take, each with weights, averages and the optimizer's state."""
    state = rehearsal.learner.state_dict()
    found = (leaf for leaf in _leaves(state) if isinstance(leaf, Tensor))
    return COPIES_ON_DISK * sum(leaf.numel() * leaf.element_size() for leaf in found) / GIGABYTE


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def free_gb(directory: Path) -> float:
    """Where a folder is, or will be made."""
    there = next(folder for folder in (directory, *directory.parents) if folder.exists())
    return shutil.disk_usage(there).free / GIGABYTE
