"""What every test of this folder needs."""

import os
from collections.abc import Iterator

import pytest

from tests.gpu.device import IS_CUDA

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable with it alone


@pytest.fixture(scope="session", autouse=True)
def device_is_there() -> None:
    import torch

    if IS_CUDA and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session", autouse=True)
def fp32_without_tf32(device_is_there: None) -> Iterator[None]:
    """Else an fp32 convolution on a GPU rounds its inputs to 10 bits."""
    import torch

    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Repeatable algorithms; an operation that has none warns, for its result may be so anyway."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
