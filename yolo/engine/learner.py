"""One optimizer step: forward, backward, clip, update, average."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from yolo.engine.distributed import Ranks
from yolo.engine.precision import Precision
from yolo.engine.throughput import add_terms
from yolo.records import Batch


@dataclass(frozen=True)
class StepResult:
    """A whole step.

    Attributes:
        terms: this rank's share of the loss by term; empty if the step was skipped.
        skipped: its gradient was not finite, and it changed nothing.
    """

    terms: dict[str, Tensor]
    skipped: bool


class Learner:
    """All that learns: the model, its averages, the optimizer and the gradient scaler.

    Args:
        model: on its device.
        loss: ``loss(outputs, targets, images_in_step) -> dict of scalars``.
        optimizer: its groups' learning rates are the base that ``schedule`` scales.
        schedule: step -> factor.
        precision: the number format of the forward pass.
        ranks: this process among all.
        images_per_step: over all micro-batches and ranks.
        gradient_clip: largest norm of the whole gradient; None for no limit.
        ema_decay: of the averaged weights; None for none.
        seed: of dropout and the like.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int], float],
        precision: Precision,
        ranks: Ranks,
        images_per_step: int,
        gradient_clip: float | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.images_per_step = images_per_step
        self._schedule, self._precision, self._ranks = schedule, precision, ranks
        self._gradient_clip, self._seed = gradient_clip, seed
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        self.scaler = precision.scaler(ranks.device)
        self.ema = None
        if ema_decay is not None:
            self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        self._parallel = model if ranks.world_size == 1 else _in_parallel(model)
        self._buffers = list(model.buffers())
        self._buffers_before = [buffer.clone() for buffer in self._buffers]

    @property
    def learning_rate(self) -> float:
        """Of the last step's weights."""
        return self.optimizer.param_groups[0]["lr"]

    def step(
        self,
        step: int,
        micro_batches: Iterator[Batch],
        count: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> StepResult | None:
        """Take optimizer step number ``step``, counted from 0.

        Args:
            step: decides learning rate and chance.
            micro_batches: ``count`` of this rank; fetched one by one.
            count: how many, so that the ranks' gradients meet in the last one.
            cancelled: asked before each micro-batch; for one process alone, since a rank that
                left the others would make them wait for ever.

        Returns:
            The result, or None if it was cancelled; then nothing has changed.
        """
        self._reseed(step)
        self._parallel.train()
        self._remember_buffers()
        terms: dict[str, Tensor] = {}
        for index in range(count):
            if cancelled():
                self._forget()
                return None
            last = index == count - 1
            add_terms(terms, self._accumulate(next(micro_batches), last=last))
        self._set_learning_rates(step)
        skipped = not self._update(terms)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(terms={} if skipped else terms, skipped=skipped)

    def _accumulate(self, batch: Batch, *, last: bool) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch."""
        batch = batch.to(self._ranks.device)
        with self._synchronising(last):
            with self._precision.autocast(self._ranks.device):
                outputs = self._parallel(batch.images)
            terms = self.loss(outputs, batch.targets, self.images_per_step)
            # DistributedDataParallel averages over the ranks, the loss is a sum over them
            total = torch.stack(list(terms.values())).sum() * self._ranks.world_size
            self.scaler.scale(total).backward()
        return {name: term.detach() for name, term in terms.items()}

    def _synchronising(self, last: bool) -> AbstractContextManager:
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        return self._parallel.no_sync()

    def _update(self, terms: dict[str, Tensor]) -> bool:
        """Change the weights, unless gradient or loss are not finite on any rank."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        loss = torch.stack(list(terms.values())).sum()
        if self._ranks.any(~(norm.isfinite() & loss.isfinite())):
            self._restore_buffers()
            return False
        if self._gradient_clip is not None:
            parameters = self.model.parameters()
            nn.utils.clip_grads_with_norm_(parameters, self._gradient_clip, norm)
        self.scaler.step(self.optimizer)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return True

    def _set_learning_rates(self, step: int) -> None:
        factor = self._schedule(step)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor

    def _reseed(self, step: int) -> None:
        """Dropout and the like depend on (seed, step, rank) alone, so that a run can resume."""
        entropy = np.random.SeedSequence((self._seed, step, self._ranks.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def _forget(self) -> None:
        """Undo an unfinished step."""
        self.optimizer.zero_grad(set_to_none=True)
        self._restore_buffers()

    def _remember_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)

    def _restore_buffers(self) -> None:
        """Batch norm's statistics as they were before the step."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._buffers_before)

    def evaluated_model(self) -> nn.Module:
        """The model to score, the same on all ranks.

        That is the averaged weights, if averaging is on, with the statistics of the trained ones.
        """
        self._ranks.broadcast_buffers(self.model)
        if self.ema is None:
            return self.model
        averaged = self.ema.module
        for ours, theirs in zip(averaged.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)
        return averaged

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data: all that the next step depends on."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state again, exactly."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.scaler.load_state_dict(state["scaler"])


def _in_parallel(model: nn.Module) -> DistributedDataParallel:
    """Average gradients over the ranks.

    Each rank's batch-norm statistics are its own until an evaluation takes rank 0's.
    """
    with warnings.catch_warnings():  # newer releases rename broadcast_buffers, older know no other
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
