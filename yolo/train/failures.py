"""PyTorch's errors that a user can do something about, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from yolo.errors import UserError

_OUT_OF_MEMORY = (
    "not enough memory",  # of a CPU
    "can't allocate memory",
    "CUDA error: out of memory",  # outside PyTorch's allocator: a context, page-locked memory
    "cudaErrorMemoryAllocation",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)
"""In the messages of errors that are no ``torch.OutOfMemoryError``."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do about a failed training, in the words of how it was configured."""

    step_memory: str = "make the micro-batch or the images smaller"
    evaluation_memory: str = "make the batches of the evaluation smaller"
    single_value: str = "batch norm cannot learn from a single value per channel"
    not_finite: str = "go on with corrected data, or begin anew with a smaller learning rate"


@contextmanager
def explain_out_of_memory(device: torch.device, advice: str) -> Iterator[None]:
    """Turn PyTorch's errors of this kind into a ``UserError`` that says what to do."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        text = str(error)
        known = any(sign in text for sign in _OUT_OF_MEMORY)
        if known or isinstance(error, torch.OutOfMemoryError):
            raise UserError(f"out of memory on {device}: {advice}") from error
        raise


@contextmanager
def explain_single_value(advice: str) -> Iterator[None]:
    """Turn batch norm's error on one image with a map of one cell into a ``UserError``."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise UserError(advice) from error
        raise
