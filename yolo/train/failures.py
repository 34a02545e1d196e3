"""What goes wrong in a step, explained: memory, batch norm, and numbers that are not finite.

Where something is not finite is looked for only once a step or a save has failed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolo.data.formats.detection import first_names
from yolo.errors import UserError
from yolo.records import Batch
from yolo.train.distributed import Ranks

_OUT_OF_MEMORY = (
    "not enough memory",  # of a CPU
    "can't allocate memory",
    "error: out of memory",  # of CUDA outside PyTorch's allocator: a context, page-locked memory
    "[CUDA]: out of memory",  # of Triton, which runs compiled networks
    "cudaErrorMemoryAllocation",
    "_STATUS_ALLOC_FAILED",  # of cuBLAS and cuSOLVER
    "ALLOCATION_FAILED",  # of cuDNN 9
)
"""In the messages of errors that are no ``torch.OutOfMemoryError``."""

MOST_NAMED = 3  # weights in a sentence; of the rest only the number
KEPT_BYTES = 128 * 2**20  # once a step's images take this much, those of further ones are dropped

Compute = Callable[[Batch], dict[str, Tensor]]
"""Forward pass and loss terms of a micro-batch on this rank alone, with its graph."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do about a training that failed or ended, in the words of how it was configured."""

    step_memory: str = "make the micro-batch or the images smaller"
    evaluation_memory: str = "make the batches of the evaluation smaller"
    single_value: str = "batch norm cannot learn from a single value per channel"
    not_finite: str = "go on with corrected data, or begin anew with a smaller learning rate"
    finished: str = "more steps train longer"
    patience: str = "a longer patience goes on"


@contextmanager
def explain_out_of_memory(device: torch.device, advice: str) -> Iterator[None]:
    """Turn PyTorch's errors of this kind into a ``UserError`` that says what to do."""
    try:
        yield
    except RuntimeError as error:
        known = any(sign in str(error) for sign in _OUT_OF_MEMORY)
        if known or isinstance(error, torch.OutOfMemoryError):
            traceback.clear_frames(error.__traceback__)  # they hold all that a step has computed
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


@dataclass
class StepInputs:
    """What one rank put into a step, on the host.

    Micro-batches beyond ``KEPT_BYTES`` lose their images: then no layer can be named.
    """

    batches: list[Batch] = field(default_factory=list)
    terms: list[dict[str, Tensor]] = field(default_factory=list)  # the loss of each
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


def find_nonfinite(state: Any) -> list[str]:
    """Dotted names of the tensors in nested dicts and lists that hold NaN or Inf; waits once."""
    found = list(_tensors(state))
    bad = set()
    for device in {tensor.device for _, tensor in found}:
        names, tensors = zip(*(pair for pair in found if pair[1].device == device), strict=True)
        flags = torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()
        bad |= {name for name, finite in zip(names, flags, strict=True) if not finite}
    return [name for name, _ in found if name in bad]


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield name, state
    elif isinstance(state, Mapping | list | tuple):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def explain_step(model: nn.Module, step: StepInputs, compute: Compute, ranks: Ranks) -> list[str]:
    """Phrases for what was not finite in a step and its images, the same on all ranks.

    The model has the step's gradients. Micro-batches are computed again where the step itself does
    not show it: their gradients were added up, and no layer's output is kept.
    """
    bad_gradients = find_nonfinite({name: p.grad for name, p in model.named_parameters()})
    names = first_names(bad_gradients, MOST_NAMED)
    what = f"the gradient of {names}" if bad_gradients else "the norm of the whole gradient"
    with _prepared(model):
        pairs = zip(step.batches, step.terms, strict=True)
        found = [_explain_forward(model, batch, terms, compute) for batch, terms in pairs]
        mine = [phrase for phrase in found if phrase is not None]
        if bad_gradients and not mine:
            guilty = [b for b in step.batches if _has_bad_gradient(model, b, compute)]
            mine = [f"{what} ({_ids(guilty)})"] if guilty else []
    of_ranks = ranks.gather(mine)
    if not any(of_ranks):  # no micro-batch of any rank shows it when computed again
        of_ranks = ranks.gather([f"{what} ({_ids(step.batches)})"])
    if ranks.world_size == 1:
        return of_ranks[0]
    return [f"rank {rank}: {phrase}" for rank, phrases in enumerate(of_ranks) for phrase in phrases]


@contextmanager
def _prepared(model: nn.Module) -> Iterator[None]:
    """Make a model ready for computing one rank's micro-batches again, with hooks."""
    # the ranks do not run in step here, so that no statistics can be exchanged
    norms = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm) and m.training]
    stance: Any = nullcontext()
    if model._compiled_call_impl is not None:  # it would be compiled anew for the hooks
        stance = torch.compiler.set_stance("force_eager")
    for norm in norms:
        norm.eval()
    try:
        with stance:
            yield
    finally:
        for norm in norms:
            norm.train()


def _explain_forward(
    model: nn.Module, batch: Batch, terms: Mapping[str, Tensor], compute: Compute
) -> str | None:
    """The phrase for a loss, a label or a layer's output that is not finite, or None."""
    bad, origin = find_nonfinite(terms), _origin(model, batch, compute)
    loss = f"loss {', '.join(bad)}" if bad else None
    phrase = ", from ".join(filter(None, [loss, origin]))
    return f"{phrase} ({_ids([batch])})" if phrase else None


def _origin(model: nn.Module, batch: Batch, compute: Compute) -> str | None:
    """The labels, the weights or the first layer's output that are not finite."""
    bad = ~batch.targets.boxes_cxcywh_norm.isfinite().all(dim=1)  # (N,)
    ids = batch.image_ids[batch.targets.image_index[bad].cpu()].unique().tolist()
    if ids:
        return f"the boxes of image {', '.join(map(str, ids))}"
    weights = find_nonfinite(dict(model.named_parameters()))
    if weights:
        return f"the weights {first_names(weights, MOST_NAMED)}"
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
    return bool(find_nonfinite(torch.autograd.grad(total, parameters, allow_unused=True)))


def _ids(batches: Sequence[Batch]) -> str:
    ids = [str(number) for batch in batches for number in batch.image_ids.tolist()]
    return f"image ids {', '.join(ids)}"
