"""One step of the loop in trainer.py: forward, backward, clip, update, average."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from yolo.records import Batch
from yolo.train.distributed import Ranks, in_parallel
from yolo.train.failures import StepInputs, explain_step
from yolo.train.freezing import Freeze
from yolo.train.precision import Precision
from yolo.train.progress import Accuracy, add_terms
from yolo.train.schedules import Plateau, Schedule


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A finished step; one with faults was skipped: it changed nothing and has no terms."""

    terms: dict[str, Tensor]  # this rank's share of the loss
    counts: dict[str, Tensor]  # this rank's hits and attempts by name, (2,) each
    gradient_norm: Tensor | None = None  # of the whole gradient before clipping, as all ranks have
    faults: Sequence[str] = ()  # what was not finite, of all ranks
    backed_off: bool = False  # only the gradient was not, and the fp16 scale becomes smaller


@dataclass(kw_only=True, eq=False, repr=False)
class Learner:
    """All that learns: the model, its averages, the optimizer and the gradient scaler."""

    model: nn.Module
    loss: nn.Module
    """``loss(outputs, targets, images_in_step, images_seen=...) -> dict of scalars``, where
    ``images_seen`` were trained on before this step."""
    optimizer: torch.optim.Optimizer  # its groups' learning rates are the base of ``schedule``
    schedule: Schedule
    precision: Precision
    ranks: Ranks
    images_in_step: int  # over all micro-batches and ranks
    gradient_clip: float | None = None  # largest norm of the whole gradient; None for no limit
    ema_decay: float | None = None  # of the averaged weights; None for none
    ema_ramp: bool = False  # the decay rises to that: weights of the start are soon forgotten
    seed: int = 0  # of dropout and the like
    accuracy: Accuracy | None = None  # counted from the outputs that are trained on
    freeze: Freeze | None = None

    def __post_init__(self) -> None:
        model, ranks = self.model, self.ranks
        self.is_whole = True  # the state is that of a whole step: none is changing the weights
        self.scaler = self.precision.scaler(ranks.device)
        self.ema = None if self.ema_decay is None else AveragedModel(model)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.freeze is not None:
            self.freeze.apply(step=0)
        self._parallel = model if ranks.world_size == 1 else in_parallel(model)
        self._buffers = list(model.buffers())
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        self._statistics = [buffer for buffer in self._buffers if buffer.is_floating_point()]

    @property
    def learning_rates(self) -> dict[str, float]:
        """Of the last step, by the name to log it under; a part with its own has its own name."""
        return {
            f"learning_rate_{group['part']}" if "part" in group else "learning_rate": group["lr"]
            for group in self.optimizer.param_groups
        }

    def step(self, step: int, micro_batches: Iterator[Batch], count: int) -> StepResult:
        """Take an optimizer step; where it raises, or a micro-batch is not there, nothing changes.

        Args:
            step: counted from 0; decides learning rate and random numbers.
            micro_batches, count: of this rank; the ranks' gradients meet in the last one.
        """
        self.is_whole = False
        self._reseed(step)
        self._begin_training(step)
        self._copy_buffers(self._buffers, self._buffers_before)
        inputs = StepInputs()
        counts: dict[str, Tensor] = {}
        try:
            for index in range(count):
                batch = next(micro_batches)
                inputs.add(batch, self._accumulate(step, batch, counts, last=index == count - 1))
        except BaseException:  # nothing has changed the weights yet
            self.optimizer.zero_grad(set_to_none=True)
            self._copy_buffers(self._buffers_before, self._buffers)
            self.is_whole = True
            raise
        factor = self.schedule(step)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor
        result = self._update(step, inputs, counts)
        self.optimizer.zero_grad(set_to_none=True)
        self.is_whole = True
        return result

    def _begin_training(self, step: int) -> None:
        """Training mode, less what is frozen."""
        self.model.train()
        changed = self.freeze is not None and self.freeze.apply(step)
        if changed and self._parallel is not self.model:
            # it exchanges the gradients of what was trained when it was made
            self._parallel = self.model
            gc.collect()  # the old one's hooks go with it
            self._parallel = in_parallel(self.model)

    def _accumulate(
        self, step: int, batch: Batch, counts: dict[str, Tensor], *, last: bool
    ) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch on the device; adds to ``counts``."""
        batch = batch.to(self.ranks.device)
        synchronising: AbstractContextManager = nullcontext()
        if not last and isinstance(self._parallel, DistributedDataParallel):
            synchronising = self._parallel.no_sync()
        with synchronising:
            outputs, terms = self._forward(self._parallel, step, batch)
            if self.accuracy is not None:
                with torch.no_grad():
                    add_terms(counts, self.accuracy(outputs, batch.targets))
            # DistributedDataParallel averages over the ranks, the loss is a sum over them
            total = torch.stack(list(terms.values())).sum() * self.ranks.world_size
            self.scaler.scale(total).backward()
        return {name: term.detach() for name, term in terms.items()}

    def _forward(
        self, network: nn.Module, step: int, batch: Batch
    ) -> tuple[Any, dict[str, Tensor]]:
        """Outputs and loss terms of a micro-batch that is on the device."""
        with self.precision.autocast(self.ranks.device):
            outputs = network(batch.images)
        seen = step * self.images_in_step
        return outputs, self.loss(outputs, batch.targets, self.images_in_step, images_seen=seen)

    def _update(self, step: int, inputs: StepInputs, counts: dict[str, Tensor]) -> StepResult:
        """Change the weights, unless loss, gradient or statistics are not finite on any rank."""
        self.scaler.unscale_(self.optimizer)
        terms: dict[str, Tensor] = reduce(add_terms, inputs.terms, {})
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        forward = torch.stack(list(terms.values())).sum()
        if self._statistics:  # an Inf that no loss shows would stay in them
            forward = forward + nn.utils.get_total_norm(self._statistics, norm_type=1.0)
        if not all(batch.targets.is_finite for batch in inputs.batches):
            forward = forward + torch.nan  # a loss may not show an infinite box
        if self.ranks.any(~(norm.isfinite() & forward.isfinite())):
            return self._skip(step, inputs, backed_off=not self.ranks.any(~forward.isfinite()))
        if self.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.gradient_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None and self.ema_decay is not None:
            decay = self.ema_decay if self.ema.n_averaged else 0.0
            if self.ema_ramp:  # as TensorFlow's ``ExponentialMovingAverage(num_updates=step)``
                decay = min(decay, (1 + step) / (10 + step))
            pairs = tuple(self.ema.module.parameters()), tuple(self.model.parameters())
            with torch.no_grad():  # ``update_parameters`` would wait, to copy ``n_averaged``
                torch._foreach_lerp_(*pairs, 1 - decay)
            self._copy_buffers(self._buffers, list(self.ema.module.buffers()))
            self.ema.n_averaged += 1
        return StepResult(terms=terms, counts=counts, gradient_norm=norm)

    def _skip(self, step: int, inputs: StepInputs, *, backed_off: bool) -> StepResult:
        """Undo the step and find what was wrong; a scale is only to blame for a gradient."""

        def compute(batch: Batch) -> dict[str, Tensor]:
            _, terms = self._forward(self.model, step, batch.to(self.ranks.device))
            return {name: self.scaler.scale(term) for name, term in terms.items()}

        self._copy_buffers(self._buffers_before, self._buffers)
        self._reseed(step)
        faults = explain_step(self.model, inputs, compute, self.ranks)
        self._copy_buffers(self._buffers_before, self._buffers)
        backed_off = backed_off and self.scaler.is_enabled()
        self.scaler.update(None if backed_off else self.scaler.get_scale())
        return StepResult(terms={}, counts={}, faults=faults, backed_off=backed_off)

    def _reseed(self, step: int) -> None:
        """Dropout and the like depend on (seed, step, rank) alone, so that a run can resume."""
        entropy = np.random.SeedSequence((self.seed, step, self.ranks.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    @staticmethod
    def _copy_buffers(source: list[Tensor], target: list[Tensor]) -> None:
        """Remember batch norm's statistics, or have them as they were before the step."""
        if source:
            torch._foreach_copy_(target, source)

    def evaluated_model(self) -> nn.Module:
        """The model to score, the same on all ranks.

        That is the averaged weights, if averaging is on, with the statistics of the trained ones.
        """
        self.ranks.broadcast_buffers(self.model)
        if self.ema is None:
            return self.model
        self._copy_buffers(self._buffers, list(self.ema.module.buffers()))
        return self.ema.module

    def note_figure(self, figure: float) -> None:
        """Give an evaluation's figure, the same on all ranks, to a schedule that goes by it."""
        if isinstance(self.schedule, Plateau):
            self.schedule.note(figure)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data: all that the next step depends on."""
        noted = self.schedule.state_dict() if isinstance(self.schedule, Plateau) else None
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "schedule": noted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state again, exactly."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.scaler.load_state_dict(state["scaler"])
        noted = state.get("schedule")  # older checkpoints have none
        if noted is not None and isinstance(self.schedule, Plateau):
            self.schedule.load_state_dict(noted)
