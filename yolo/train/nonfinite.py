"""What is not a number, and where it came from: asked only once a step or a save has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolo.records import Batch
from yolo.train.distributed import Ranks

NAMED = 3  # weights in a sentence; of the rest only the number
KEPT_BYTES = 128 * 2**20  # once a step's images take this much, those of further ones are dropped

Compute = Callable[[Batch], dict[str, Tensor]]
"""Forward pass and loss terms of a micro-batch on this rank alone, with its graph."""


@dataclass
class StepInputs:
    """What one rank put into a step, on the host.

    Attributes:
        batches: its micro-batches; beyond ``KEPT_BYTES`` without their images, and for such a one
            only the loss and the labels are explained, not the layer.
        terms: the loss of each, by term.
    """

    batches: list[Batch] = field(default_factory=list)
    terms: list[dict[str, Tensor]] = field(default_factory=list)
    _kept_bytes: int = 0

    def add(self, batch: Batch, terms: dict[str, Tensor]) -> None:
        """One more micro-batch, as it came from the loader, and its loss."""
        images = batch.images
        if self._kept_bytes >= KEPT_BYTES:
            images = images[:, :, :0, :0].clone()  # (B, 3, 0, 0): a view would keep the rest
        elif not images.is_cuda and images.is_shared():  # as a loader's process sent it
            images = images.clone()  # in /dev/shm, which may be small, is room for one step's work
        self._kept_bytes += images.nbytes
        self.batches.append(replace(batch, images=images))
        self.terms.append(terms)


def find_nonfinite(state: Any, above: str = "") -> list[str]:
    """The dotted names of the floating tensors in nested dicts and lists that hold NaN or Inf.

    Waits for each device once.
    """
    found = list(_tensors(state, above))
    bad = set()
    for device in {tensor.device for _, tensor in found}:
        names, tensors = zip(*(pair for pair in found if pair[1].device == device), strict=True)
        flags = torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()
        bad |= {name for name, finite in zip(names, flags, strict=True) if not finite}
    return [name for name, _ in found if name in bad]


def explain_step(model: nn.Module, step: StepInputs, compute: Compute, ranks: Ranks) -> list[str]:
    """Name what was not finite in a step, and the images that it came from.

    Micro-batches are computed again where the step itself does not show it: their gradients were
    added up, and no layer's output is kept.

    Args:
        model: with the gradients of the step.
        step, compute: of this rank.

    Returns:
        A phrase for each micro-batch at fault; the same on all ranks.
    """
    bad_gradients = find_nonfinite(
        {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    )
    with _local_statistics(model), _uncompiled(model):
        pairs = zip(step.batches, step.terms, strict=True)
        found = [_forward_fault(model, batch, terms, compute) for batch, terms in pairs]
        mine = [phrase for phrase in found if phrase is not None]
        if bad_gradients and not mine:
            guilty = [b for b in step.batches if _has_bad_gradient(model, b, compute)]
            mine = [f"the gradient of {shorten(bad_gradients)} ({_ids(guilty)})"] if guilty else []
    of_ranks = ranks.gather(mine)
    if not any(of_ranks):  # no micro-batch of any rank shows it when computed again
        what = "the norm of the whole gradient"
        if bad_gradients:
            what = f"the gradient of {shorten(bad_gradients)}"
        of_ranks = ranks.gather([f"{what} ({_ids(step.batches)})"])
    if ranks.world_size == 1:
        return of_ranks[0]
    return [f"rank {rank}: {phrase}" for rank, phrases in enumerate(of_ranks) for phrase in phrases]


def shorten(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@contextmanager
def _local_statistics(model: nn.Module) -> Iterator[None]:
    """Keep batch norms that exchange statistics from it: the ranks do not run in step here."""
    norms = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def _uncompiled(model: nn.Module) -> Any:
    """A compiled model would be compiled anew for the hooks, and after some such times no more."""
    if model._compiled_call_impl is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _forward_fault(
    model: nn.Module, batch: Batch, terms: Mapping[str, Tensor], compute: Compute
) -> str | None:
    """The phrase for a loss, a label or a layer's output that is not finite, or None."""
    bad = find_nonfinite(dict(terms))
    origin = _bad_labels(batch) or _bad_weights(model) or _bad_output(model, batch, compute)
    if not bad and origin is None:
        return None
    loss = f"loss {', '.join(bad)}" if bad else None
    return f"{', from '.join(filter(None, [loss, origin]))} ({_ids([batch])})"


def _bad_labels(batch: Batch) -> str | None:
    targets = batch.targets
    bad = ~targets.boxes_cxcywh_norm.isfinite().all(dim=1)  # (N,)
    ids = batch.image_ids[targets.image_index[bad].cpu()].unique().tolist()
    return f"the boxes of image {', '.join(map(str, ids))}" if ids else None


def _bad_weights(model: nn.Module) -> str | None:
    weights = find_nonfinite(dict(model.named_parameters()))
    return f"the weights {shorten(weights)}" if weights else None


def _bad_output(model: nn.Module, batch: Batch, compute: Compute) -> str | None:
    """The first layer with such an output."""
    if not batch.images.numel():
        return None
    found: list[str] = []

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if not found and find_nonfinite([output]):
            found.append(name or "the network")

    handles = [m.register_forward_hook(partial(note, name)) for name, m in model.named_modules()]
    try:
        with torch.no_grad():
            compute(batch)
    finally:
        for handle in handles:
            handle.remove()
    return f"the output of {found[0]}" if found else None


def _has_bad_gradient(model: nn.Module, batch: Batch, compute: Compute) -> bool:
    """Of one micro-batch on this rank; one without its images stays a suspect."""
    if not batch.images.numel():
        return True
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.stack(list(compute(batch).values())).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return bool(find_nonfinite([g for g in gradients if g is not None]))


def _ids(batches: Sequence[Batch]) -> str:
    ids = [str(number) for batch in batches for number in batch.image_ids.tolist()]
    return f"image ids {', '.join(ids)}"


def _tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield name, state
        return
    items: Any = ()
    if isinstance(state, Mapping):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    for key, value in items:
        yield from _tensors(value, f"{name}.{key}" if name else str(key))
