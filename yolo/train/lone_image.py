"""Batch norm on a single number, told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from yolo.errors import UserError

_SIGN = "more than 1 value per channel"


@contextmanager
def explain_lone_image() -> Iterator[None]:
    """Turn PyTorch's error of this kind into a ``UserError`` that says what to do."""
    try:
        yield
    except ValueError as error:
        if _SIGN not in str(error):
            raise
        raise UserError(
            "data.image_size: so small that the last map is a single cell, which batch norm cannot "
            "learn from in a micro-batch of one image; make data.image_size (or "
            "data.multi_scale.min) larger, or choose training.batch_size and "
            "training.micro_batch_size so that no process is left with a micro-batch of one image"
        ) from error
