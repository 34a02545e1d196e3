"""What is trained and how: optimizers with weight decay on weights alone, and frozen stages.

All optimizers are fused: one kernel over all parameters. For Darknet-53's YOLOv3 on two CPU cores
Adam's step takes under a third of the time of PyTorch's other implementations. Fused steps also
skip a scaler's non-finite gradients without waiting for the device.

A fused kernel on a CPU pairs parameter, gradient and state by their place in memory. Autograd and
``load_state_dict`` keep the parameter's strides; whoever sets a gradient by hand must do so too.

In all of them ``encoder_learning_rate`` is the base rate of ``model.encoder``, None for the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam, AdamW, Optimizer

from yolo.errors import UserError


def adam(
    model: nn.Module,
    *,
    learning_rate: float,
    encoder_learning_rate: float | None = None,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    kind: type[Adam] = Adam,
) -> Optimizer:
    """Adam (https://arxiv.org/abs/1412.6980).

    The weight decay is added to the gradient (L2 regularisation), so Adam's scaling applies to it.
    """
    groups = param_groups(model, weight_decay, encoder_learning_rate)
    return kind(groups, lr=learning_rate, betas=betas, fused=True)


adamw = partial(adam, kind=AdamW, weight_decay=0.01)
"""Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101): each step removes the weight
decay, times the learning rate, as a share of a weight."""


def sgd(
    model: nn.Module,
    *,
    learning_rate: float,
    encoder_learning_rate: float | None = None,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Gradient descent with momentum, Darknet's optimizer.

    The learning rate multiplies the running sum of gradients, in Darknet as in PyTorch; the weight
    decay is added to the gradient.
    """
    groups = param_groups(model, weight_decay, encoder_learning_rate)
    optimizer = SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov, fused=True)
    optimizer.register_step_pre_hook(_begin_momentum)
    return optimizer


def _begin_momentum(optimizer: Optimizer, *_: object) -> None:
    """Give a momentum of zero to what is trained from now on, beside what was before.

    PyTorch's fused step takes a group whose momenta all exist or all do not, but no mixture. From
    zero the first sum is the bare gradient, as PyTorch begins it.
    """
    for group in optimizer.param_groups:
        trained = [p for p in group["params"] if p.grad is not None]
        new = [p for p in trained if optimizer.state.get(p, {}).get("momentum_buffer") is None]
        if group["momentum"] and 0 < len(new) < len(trained):
            for parameter in new:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def param_groups(
    model: nn.Module, weight_decay: float, encoder_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Split the parameters, frozen ones too: weights decay; biases and batch norm do not.

    Returns:
        Always two groups, weights first, in the model's order; one may be empty. Where the encoder
        has a rate of its own, two of the rest and then two of it, whose ``part`` is ``encoder``.
    """

    def by_decay(parameters: list[nn.Parameter], **more: Any) -> list[dict[str, Any]]:
        weights = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        return [
            {"params": weights, "weight_decay": weight_decay, **more},
            {"params": others, "weight_decay": 0.0, **more},
        ]

    if encoder_learning_rate is None:
        return by_decay(list(model.parameters()))
    assert isinstance(model.encoder, nn.Module)
    encoder = list(model.encoder.parameters())
    of_encoder = set(encoder)
    rest = [p for p in model.parameters() if p not in of_encoder]
    return by_decay(rest) + by_decay(encoder, lr=encoder_learning_rate, part="encoder")


@dataclass(eq=False, repr=False)
class Freeze:
    """Keep an encoder, or its beginning, as it is.

    What is frozen gets no gradient, so that neither momentum nor weight decay reaches it. A frozen
    batch norm works with the statistics that it has gathered, in training too.
    """

    model: nn.Module  # has an ``encoder``, whose ``stages`` can be frozen
    _: KW_ONLY
    until: str = "encoder"  # the last frozen stage, as in ``encoder.stages.3``, or all
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
