"""The device under test, and exact arithmetic on it.

Without a GPU these tests are skipped. `YOLO_GPU_TESTS_ON=cpu` runs them on the CPU: that proves
nothing of a GPU, it tries the tests themselves.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.detectors import ONE_RANK
from tests.train.toys import quickstart

NAME = os.environ.get("YOLO_GPU_TESTS_ON", "cuda:0")
DEVICE = torch.device(NAME)
IS_CUDA = DEVICE.type == "cuda"
RANKS = replace(ONE_RANK, device=DEVICE)
GPU_OPTION = f"--gpu={DEVICE.index}" if IS_CUDA else "--gpu=cpu"

only_cuda = pytest.mark.skipif(not IS_CUDA, reason="a CPU has nothing like it")


def arguments(folder: Path, **changes: dict[str, Any]) -> list[str]:
    """main.py's arguments for a small training on the device; ``changes`` by section."""
    _, *settings = quickstart(folder, **changes)
    return [GPU_OPTION, *settings]
