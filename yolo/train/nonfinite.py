"""What is not a number, and where it came from: asked only once a step or a save has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from yolo.records import Batch
from yolo.train.distributed import Ranks

NAMED = 3
"""So many weights are named in a sentence; of the rest only the number."""

KEPT_BYTES = 128 * 2**20
"""Once a step's kept images take this much, those of its further micro-batches are let go."""


@dataclass
class Share:
    """What one rank put into a step, on the host.

    Attributes:
        batches: its micro-batches. Beyond ``KEPT_BYTES`` they lack their images, and of such a one
            only the loss and the labels are told about, not the layer.
        terms: the loss of each, by term.
        kept_bytes: of all images.
    """

    batches: list[Batch] = field(default_factory=list)
    terms: list[dict[str, Tensor]] = field(default_factory=list)
    kept_bytes: int = 0

    def add(self, batch: Batch, terms: dict[str, Tensor]) -> None:
        """One more micro-batch, as it came from the loader, and its loss."""
        images = batch.images
        if self.kept_bytes >= KEPT_BYTES:
            images = images[:, :, :0, :0].clone()  # (B, 3, 0, 0): a view would keep the rest
        elif not images.is_cuda and images.is_shared():  # as a loader's process sent it
            images = images.clone()  # in /dev/shm, which may be small, is room for one step's work
        self.kept_bytes += images.nbytes
        self.batches.append(replace(batch, images=images))
        self.terms.append(terms)


def find_nonfinite(state: Any, above: str = "") -> list[str]:
    """The dotted names of the floating tensors in nested dicts and lists that hold NaN or Inf.

    Waits for each device once.
    """
    found = list(_tensors(state, above))
    by_device: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor in found:
        by_device.setdefault(tensor.device, []).append((name, tensor))
    bad = set()
    for pairs in by_device.values():
        flags = torch.stack([tensor.isfinite().all() for _, tensor in pairs]).tolist()
        bad |= {name for (name, _), finite in zip(pairs, flags, strict=True) if not finite}
    return [name for name, _ in found if name in bad]


def explain_step(
    model: nn.Module, share: Share, compute: Callable[[Batch], dict[str, Tensor]], ranks: Ranks
) -> list[str]:
    """Name what was not finite in a step, and the images that it came from.

    Micro-batches are computed again where the step alone does not tell: their own gradients were
    added up, and no layer's output is kept.

    Args:
        model: with the gradients of the step.
        share: of this rank.
        compute: forward pass and loss of a micro-batch on this rank alone, with its graph.
        ranks: this process among all.

    Returns:
        A phrase for each micro-batch at fault; the same on all ranks.
    """
    with _without_exchange(model), _as_written(model):
        mine = _phrases(model, share, compute)
    told = ranks.gather(mine)
    if not any(told):
        told = ranks.gather([_describe_gradient(model, share)])
    if ranks.world_size == 1:
        return told[0]
    return [f"rank {rank}: {phrase}" for rank, phrases in enumerate(told) for phrase in phrases]


def shorten(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _phrases(
    model: nn.Module, share: Share, compute: Callable[[Batch], dict[str, Tensor]]
) -> list[str]:
    """Of this rank; none where the fault is another's."""
    pairs = list(zip(share.batches, share.terms, strict=True))
    phrases = [_of_loss(model, batch, terms, compute) for batch, terms in pairs]
    found = [phrase for phrase in phrases if phrase is not None]
    if found:
        return found
    bad = find_nonfinite(_gradients(model))
    if not bad:
        return []
    guilty = [batch for batch in share.batches if _has_bad_gradient(model, batch, compute)]
    return [f"the gradient of {shorten(bad)} ({_images(guilty)})"] if guilty else []


def _describe_gradient(model: nn.Module, share: Share) -> str:
    """The phrase for a gradient that no micro-batch of any rank shows when computed again."""
    bad = find_nonfinite(_gradients(model))
    what = f"the gradient of {shorten(bad)}" if bad else "the norm of the whole gradient"
    return f"{what} ({_images(share.batches)})"


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@contextmanager
def _without_exchange(model: nn.Module) -> Iterator[None]:
    """Keep batch norms that exchange statistics to their own: the ranks do not run in step here."""
    norms = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def _as_written(model: nn.Module) -> AbstractContextManager:
    """A compiled model would be compiled anew for the hooks, and after some such times no more."""
    if model._compiled_call_impl is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _of_loss(
    model: nn.Module,
    batch: Batch,
    terms: Mapping[str, Tensor],
    compute: Callable[[Batch], dict[str, Tensor]],
) -> str | None:
    """The phrase for a loss or a layer's output that is not finite, or None."""
    bad = find_nonfinite(dict(terms))
    origin = _bad_labels(batch) or _bad_output(model, batch, compute)
    if not bad and origin is None:
        return None
    told = [f"loss {', '.join(bad)}"] if bad else []
    told += [] if origin is None else [origin]
    return f"{', from '.join(told)} ({_images([batch])})"


def _bad_labels(batch: Batch) -> str | None:
    targets = batch.targets
    bad = ~targets.boxes_cxcywh_norm.isfinite().all(dim=1)  # (N,)
    if not bad.any():
        return None
    ids = batch.image_ids[targets.image_index[bad].cpu()].unique().tolist()
    return f"the boxes of image {', '.join(map(str, ids))}"


def _bad_output(
    model: nn.Module, batch: Batch, compute: Callable[[Batch], dict[str, Tensor]]
) -> str | None:
    """The first layer with such an output, where weights that are no numbers do not explain it."""
    weights = find_nonfinite(dict(model.named_parameters()))
    if weights:
        return f"the weights {shorten(weights)}"
    if not batch.images.numel():
        return None
    with _first_bad_output(model) as found, torch.no_grad():
        compute(batch)
    return f"the output of {found[0]}" if found else None


@contextmanager
def _first_bad_output(model: nn.Module) -> Iterator[list[str]]:
    """Collects the names of the layers whose outputs are not finite, in the order they run."""
    found: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not found and find_nonfinite([output]):
                found.append(name or "the network")

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _has_bad_gradient(
    model: nn.Module, batch: Batch, compute: Callable[[Batch], dict[str, Tensor]]
) -> bool:
    """Computes this rank's gradient of one micro-batch, without the exchange with the others.

    A micro-batch without its images stays a suspect.
    """
    if not batch.images.numel():
        return True
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.stack(list(compute(batch).values())).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return bool(find_nonfinite([g for g in gradients if g is not None]))


def _images(batches: Sequence[Batch]) -> str:
    ids = [str(number) for batch in batches for number in batch.image_ids.tolist()]
    return f"image ids {', '.join(ids)}"


def _tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield name, state
        return
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(state, Mapping):
        items = iter(state.items())
    elif isinstance(state, list | tuple):
        items = iter(enumerate(state))
    for key, value in items:
        yield from _tensors(value, f"{name}.{key}" if name else str(key))
