"""Frozen stages of an encoder: what keeps its weights, and until which step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolo.errors import UserError


@dataclass(eq=False, repr=False)
class Freeze:
    """Keep an encoder, or its beginning, as it is.

    What is frozen gets no gradient, so that neither momentum nor weight decay reaches it. A frozen
    batch norm works with the statistics that it has gathered, in training too.
    """

    model: nn.Module  # has an ``encoder``, whose ``stages`` can be frozen
    _: KW_ONLY
    until: str = "encoder"  # the last frozen stage (``encoder.stages.3``), or all
    batch_norm: Literal["trained", "frozen_part", "whole_network"] = "frozen_part"
    """Whose batch norms keep scale, shift and statistics."""
    unfreeze_at: int | None = None  # the step from which on everything is trained; None for never

    def __post_init__(self) -> None:
        assert isinstance(self.model.encoder, nn.Module)
        frozen = nn.ModuleList(_stages_until(self.model.encoder, self.until))
        norms = [module for module in frozen.modules() if isinstance(module, _BatchNorm)]
        of_norms = {parameter for norm in norms for parameter in norm.parameters()}
        kept = [p for p in frozen.parameters() if p not in of_norms]
        if self.batch_norm == "trained":
            norms = []
        elif self.batch_norm == "whole_network":
            norms = [module for module in self.model.modules() if isinstance(module, _BatchNorm)]
        self._norms = norms
        self._parameters = [*kept, *nn.ModuleList(norms).parameters()]

    def _is_on(self, step: int) -> bool:
        return self.unfreeze_at is None or step < self.unfreeze_at

    def apply(self, step: int) -> bool:
        """Freeze or unfreeze after each ``model.train()``; whether this changed what is trained."""
        on = self._is_on(step)
        for norm in self._norms if on else ():
            norm.eval()
        changed = any(parameter.requires_grad == on for parameter in self._parameters)
        for parameter in self._parameters:
            parameter.requires_grad_(not on)
        return changed

    def describe(self, step: int, *, starting: bool) -> str | None:
        """A line for people where training starts with frozen stages, or trains them from here."""
        if starting and self._is_on(step):
            end = "" if self.unfreeze_at is None else f" before step {self.unfreeze_at:,}"
            count = sum(parameter.numel() for parameter in self._parameters)
            return f"frozen{end}: {count:,} parameters, up to {self.until}"
        if not starting and step == self.unfreeze_at:
            return f"step {step}: everything is trained from here on"
        return None


def stages(encoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of an encoder (or of its lists and sequences) that have weights, as they run."""
    for name, child in encoder.named_children():
        members = [(name, child)]
        if isinstance(child, nn.ModuleList | nn.Sequential):
            members = [(f"{name}.{index}", member) for index, member in child.named_children()]
        for member_name, member in members:
            if next(member.parameters(), None) is not None:
                yield f"encoder.{member_name}", member


def _stages_until(encoder: nn.Module, until: str) -> list[nn.Module]:
    """The stages up to the last one of this name, or of a list or sequence of this name."""
    names, modules = zip(*stages(encoder), strict=True)
    named = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{until}.")]
    if not named:
        raise UserError(
            f"{until!r} is no stage of this encoder; it can be {', '.join(['encoder', *names])}"
        )
    return list(modules[: named[-1] + 1])
