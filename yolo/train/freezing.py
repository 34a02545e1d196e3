"""Parts of a network that keep their weights, all the time or up to a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolo.errors import UserError

WHOLE = "encoder"


class Freeze:
    """Keep an encoder, or its beginning, as it is.

    What is frozen gets no gradient, so that neither momentum nor weight decay reaches it. A frozen
    batch norm works with the statistics that it has gathered, in training too.

    Args:
        model: has an ``encoder``, whose children (or, of its lists and sequences, theirs) are its
            stages, in the order in which they run.
        until: the last frozen part: ``encoder``, or a stage as in ``encoder.stages.3``.
        batch_norm: whose batch norms keep scale, shift and statistics.
        unfreeze_at: the step from which on everything is trained; None for never.

    Raises:
        UserError: no such stage.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        until: str = WHOLE,
        batch_norm: Literal["trained", "frozen_part", "whole_network"] = "frozen_part",
        unfreeze_at: int | None = None,
    ) -> None:
        assert isinstance(model.encoder, nn.Module)
        frozen = _modules_until(model.encoder, until)
        self.until, self.unfreeze_at = until, unfreeze_at
        part = _norms_in(frozen)
        self._norms = {"trained": [], "frozen_part": part, "whole_network": _norms_in([model])}[
            batch_norm
        ]
        of_norms = {parameter for norm in part for parameter in norm.parameters()}
        kept = [p for module in frozen for p in module.parameters() if p not in of_norms]
        kept += [parameter for norm in self._norms for parameter in norm.parameters()]
        self._parameters = list(dict.fromkeys(kept))

    def is_on(self, step: int) -> bool:
        """Whether optimizer step ``step``, counted from 0, leaves the frozen part alone."""
        return self.unfreeze_at is None or step < self.unfreeze_at

    def apply(self, step: int) -> bool:
        """Freeze or unfreeze for a step; to be called after each ``model.train()``.

        Returns:
            Whether this changed what is trained.
        """
        on = self.is_on(step)
        for norm in self._norms if on else ():
            norm.eval()
        changed = any(parameter.requires_grad == on for parameter in self._parameters)
        for parameter in self._parameters:
            parameter.requires_grad_(not on)
        return changed

    def describe(self, step: int, *, starting: bool) -> str | None:
        """A line for people where training starts with frozen parts, or trains them from here."""
        if starting and self.is_on(step):
            end = "" if self.unfreeze_at is None else f" before step {self.unfreeze_at:,}"
            count = sum(parameter.numel() for parameter in self._parameters)
            return f"frozen{end}: {count:,} parameters, up to {self.until}"
        if not starting and step == self.unfreeze_at:
            return f"step {step}: everything is trained from here on"
        return None


def stages(encoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of an encoder that have weights, by name, in the order in which they run."""
    for name, child in encoder.named_children():
        members = [(name, child)]
        if isinstance(child, nn.ModuleList | nn.Sequential):
            members = [(f"{name}.{index}", member) for index, member in child.named_children()]
        for member_name, member in members:
            if next(member.parameters(), None) is not None:
                yield f"{WHOLE}.{member_name}", member


def _modules_until(encoder: nn.Module, until: str) -> list[nn.Module]:
    """The stages up to the last one of this name, or of a list or sequence of this name."""
    names, modules = zip(*stages(encoder), strict=True)
    named = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{until}.")]
    if not named:
        raise UserError(
            f"{until!r} is no part of this encoder; it can be {', '.join([WHOLE, *names])}"
        )
    return list(modules[: named[-1] + 1])


def _norms_in(modules: list[nn.Module]) -> list[nn.Module]:
    return [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
