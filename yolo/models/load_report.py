"""What a weights file gave to a model, and what it left at its initial values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The result of filling a model, or a part of it, from a file.

    Attributes:
        source: the file, and what was found in it.
        filled: names of the layers that took their values from the file, in the model's order.
        left: names of the layers that keep their initial values.
        parameters_filled: numbers in the filled parameters; running statistics do not count.
        parameters: numbers in all parameters of the model or part.
    """

    source: str
    filled: tuple[str, ...]
    left: tuple[str, ...]
    parameters_filled: int
    parameters: int

    @property
    def share(self) -> float:
        """Share of the parameters that were filled, 0 to 1."""
        return self.parameters_filled / self.parameters if self.parameters else 1.0

    def lines(self) -> list[str]:
        """For the log: how much was filled, then the layers that were left."""
        heading = (
            f"{self.source}: {len(self.filled)} of {len(self.filled) + len(self.left)} layers, "
            f"{self.share:.1%} of {self.parameters:,} parameters"
        )
        return [heading, *(f"  left at its initial values: {name}" for name in self.left)]
