"""Out of memory, told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from yolo.errors import UserError

_SIGNS = (
    "not enough memory",  # of a CPU
    "can't allocate memory",
    "CUDA error: out of memory",  # outside PyTorch's allocator: a context, page-locked memory
    "cudaErrorMemoryAllocation",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)
"""What the errors say that are no ``torch.OutOfMemoryError``."""


@contextmanager
def explain_out_of_memory(device: torch.device, advice: str) -> Iterator[None]:
    """Turn PyTorch's errors of this kind into a ``UserError`` that says what to do."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        told = str(error)
        if isinstance(error, torch.OutOfMemoryError) or any(text in told for text in _SIGNS):
            raise UserError(f"out of memory on {device}: {advice}") from error
        raise
