"""The side of the training images, step by step: functions of the optimizer step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE_STREAM = (0, 2)
"""Sets these draws apart from those of the order and of the transforms."""


@dataclass(frozen=True, slots=True)
class FixedSize:
    """The same side in every step.

    Attributes:
        side_px: pixels.
    """

    side_px: int

    def __call__(self, step: int) -> int:
        """The side in pixels of all images of ``step``."""
        del step
        return self.side_px


@dataclass(frozen=True, slots=True)
class RandomSizes:
    """Multi-scale training (YOLO9000, section 2): a new side every few steps, for all ranks.

    Attributes:
        sides_px: what is drawn from.
        every: steps that keep a side.
        seed: of the run.
        until_step: the first step with ``final_px``; None never ends.
        final_px: the side from then on.
    """

    sides_px: tuple[int, ...]
    every: int
    seed: int
    until_step: int | None
    final_px: int

    def __call__(self, step: int) -> int:
        """The side in pixels of all images of ``step``."""
        if self.until_step is not None and step >= self.until_step:
            return self.final_px
        seeds = np.random.SeedSequence((self.seed, step // self.every, *SIZE_STREAM))
        generator = np.random.Generator(np.random.PCG64(seeds))
        return self.sides_px[generator.integers(len(self.sides_px))]
