"""The training loop. It knows no detection: a model, a loss, batches and an evaluator."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from yolo.data.loader import lost_worker
from yolo.engine.checkpoint import link_checkpoint, save_checkpoint
from yolo.engine.distributed import Ranks
from yolo.engine.evaluation import Evaluator
from yolo.engine.interruption import Interrupted, Interruption
from yolo.engine.logging import RunLog
from yolo.engine.precision import Precision
from yolo.errors import UserError
from yolo.records import Batch


class Batches(Protocol):
    """The endless stream of this rank's micro-batches."""

    micro_batches_per_step: int

    def from_step(self, step: int) -> Iterator[Batch]:
        """The micro-batches of optimizer step ``step`` and all after it."""

    def close(self) -> None:
        """End the workers."""


@dataclass
class Progress:
    """How far a training is: plain data that a checkpoint carries.

    Attributes:
        step: optimizer steps done.
        evaluated_step: the step of the last complete evaluation.
        best_figure: the best monitored figure so far; None before the first evaluation.
        best_step: its step; of equals, the earlier.
        evaluations_since_best: for ``patience``.
        skipped_steps: steps whose gradients were not finite.
        scaler_backoffs: steps that the fp16 scaler gave up to find a smaller scale.
        figures: of the last evaluation.
    """

    step: int = 0
    evaluated_step: int = 0
    best_figure: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped_steps: int = 0
    scaler_backoffs: int = 0
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to train.

    Attributes:
        steps: optimizer steps in all.
        images_per_step: over all micro-batches and ranks.
        evaluate_every, checkpoint_every, log_every: steps.
        gradient_clip: largest norm of the whole gradient; None for no limit.
        ema_decay: of the averaged weights; None for none.
        patience: stop after so many evaluations without a better figure; None for never.
        seed: of everything random.
    """

    steps: int
    images_per_step: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    gradient_clip: float | None = None
    ema_decay: float | None = None
    patience: int | None = None
    seed: int = 0


class Trainer:
    """Train a model, counted in optimizer steps.

    Args:
        model: on its device; the checkpoint holds its ``state_dict``.
        loss: ``loss(outputs, targets, images_in_step) -> dict of scalars``.
        batches: this rank's micro-batches.
        evaluator: names and computes the monitored figure.
        optimizer: its groups' learning rates are the base that ``schedule`` scales.
        schedule: step -> factor.
        plan: the numbers.
        precision: the number format of the forward pass.
        ranks: this process among all.
        folder: the run's folder, for ``last.pt`` and ``best.pt``.
        log: where to report.
        card: plain data that every checkpoint carries, to be read without the config.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: nn.Module,
        batches: Batches,
        evaluator: Evaluator,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int], float],
        plan: Plan,
        precision: Precision,
        ranks: Ranks,
        folder: Path,
        log: RunLog,
        card: dict[str, Any],
    ) -> None:
        self.model, self.loss, self.batches, self.evaluator = model, loss, batches, evaluator
        self.optimizer, self.schedule, self.plan = optimizer, schedule, plan
        self.precision, self.ranks, self.folder = precision, ranks, folder
        self.log, self.card = log, card
        self.progress = Progress()
        self.scaler = precision.scaler(ranks.device)
        self.ema = None
        if plan.ema_decay is not None:
            averaging = get_ema_multi_avg_fn(plan.ema_decay)
            self.ema = AveragedModel(model, multi_avg_fn=averaging)
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        self._parallel = model
        if ranks.world_size > 1:
            self._parallel = _in_parallel(model)
        self._buffers = list(model.buffers())
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        self._window = _Window()

    def fit(self) -> Progress:
        """Train to the last step, or until patience ends.

        Raises:
            Interrupted: a signal came; ``last.pt`` was written.
            UserError: out of memory, data that cannot be read, a disk that is full.
        """
        try:
            with Interruption() as interruption:
                if self.progress.step >= self.plan.steps:
                    self.log.say(f"{self.folder}: finished already, at step {self.progress.step}")
                self._fit(interruption)
            self._conclude()
        except torch.OutOfMemoryError as error:
            raise UserError(self._out_of_memory()) from error
        except RuntimeError as error:
            if "not enough memory" in str(error) or "can't allocate memory" in str(error):
                raise UserError(self._out_of_memory()) from error
            raise lost_worker(error) or error from None
        finally:
            self.batches.close()
            self.log.close()
        return self.progress

    def _conclude(self) -> None:
        best, step = self.progress.best_figure, self.progress.best_step
        if best is not None:
            self.log.say(f"best {self._monitored(best)} at step {step}: {self.folder / 'best.pt'}")

    def _fit(self, interruption: Interruption) -> None:
        stream = None
        while True:
            if self._evaluation_is_due():
                self._evaluate(interruption)
            if self.progress.step >= self.plan.steps or self._patience_is_over():
                return
            if stream is None:
                stream = self.batches.from_step(self.progress.step)
                self._window = _Window()
            self._step(stream, interruption)
            if self.progress.step % self.plan.checkpoint_every == 0:
                self.save()

    # One optimizer step

    def _step(self, stream: Iterator[Batch], interruption: Interruption) -> None:
        step = self.progress.step
        self._reseed(step)
        self._parallel.train()
        self._remember_buffers()
        alone = self.ranks.world_size == 1
        count = self.batches.micro_batches_per_step
        terms: dict[str, Tensor] = {}
        for index in range(count):
            if alone and interruption():
                self._stop(interruption)
            batch = self._window.waiting(stream)
            _add(terms, self._micro_batch(batch, last=index == count - 1))
        self._set_learning_rates(step)
        norm, finite = self._gradients(terms)
        if self.ranks.any(~finite):
            self._skip()
        else:
            if self.plan.gradient_clip is not None:
                self._clip(norm, self.plan.gradient_clip)
            self.scaler.step(self.optimizer)
            if self.ema is not None:
                self.ema.update_parameters(self.model)
            self._window.add(terms)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step = step + 1
        self._window.close_step(self.plan.images_per_step)
        self._report()
        if self.ranks.any(interruption()):
            self._stop(interruption)

    def _micro_batch(self, batch: Batch, *, last: bool) -> dict[str, Tensor]:
        """Forward and backward; the gradients of the ranks meet in the step's last one."""
        batch = batch.to(self.ranks.device)
        with self._synchronising(last):
            with self.precision.autocast(self.ranks.device):
                outputs = self._parallel(batch.images)
            terms = self.loss(outputs, batch.targets, self.plan.images_per_step)
            # DistributedDataParallel averages over the ranks, the loss is a sum over them
            total = torch.stack(list(terms.values())).sum() * self.ranks.world_size
            self.scaler.scale(total).backward()
        return {name: term.detach() for name, term in terms.items()}

    def _synchronising(self, last: bool) -> AbstractContextManager:
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        return self._parallel.no_sync()

    def _gradients(self, terms: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Norm of the unscaled gradient, and whether it and the loss are finite."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        loss = torch.stack(list(terms.values())).sum()
        return norm, norm.isfinite() & loss.isfinite()

    def _skip(self) -> None:
        """The step counts, but weights, optimizer, averages and statistics stay as they were."""
        self._restore_buffers()
        if self.scaler.is_enabled():
            self.progress.scaler_backoffs += 1
        else:
            self.progress.skipped_steps += 1
            self.log.say(f"step {self.progress.step}: skipped, its gradient is not finite")

    def _clip(self, norm: Tensor, limit: float) -> None:
        nn.utils.clip_grads_with_norm_(self.model.parameters(), limit, norm)

    def _set_learning_rates(self, step: int) -> None:
        factor = self.schedule(step)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor

    def _reseed(self, step: int) -> None:
        """Dropout and the like depend on (seed, step, rank) alone, so that a run can resume."""
        entropy = np.random.SeedSequence((self.plan.seed, step, self.ranks.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def _remember_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)

    def _restore_buffers(self) -> None:
        """Forget what an unfinished or skipped step did to the batch-norm statistics."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._buffers_before)

    def _report(self) -> None:
        step = self.progress.step
        self.log.progress(step)
        if step % self.plan.log_every and step != self.plan.steps:
            return
        figures = self._window.figures(self.ranks)
        figures["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        figures["skipped_steps"] = self.progress.skipped_steps
        seconds_left = (
            (self.plan.steps - step) * self.plan.images_per_step / figures["images_per_second"]
        )
        self.log.training(step, figures, seconds_left=seconds_left)
        self._window = _Window()

    # Evaluation and checkpoints

    def _evaluation_is_due(self) -> bool:
        progress = self.progress
        due = progress.step % self.plan.evaluate_every == 0 or progress.step == self.plan.steps
        return due and progress.step > progress.evaluated_step

    def _patience_is_over(self) -> bool:
        patience = self.plan.patience
        if patience is None or self.progress.evaluations_since_best < patience:
            return False
        self.log.say(
            f"stopped: {self.evaluator.monitor} has not risen for {patience} evaluations "
            f"since step {self.progress.best_step}"
        )
        return True

    def _evaluate(self, interruption: Interruption) -> None:
        self.ranks.broadcast_buffers(self.model)
        model = self.model if self.ema is None else self.evaluated_model()
        evaluation = self.evaluator.evaluate(model, interruption)
        if evaluation is None:
            self._stop(interruption)
        assert evaluation is not None
        is_best = self._take_note(evaluation.figure, evaluation.figures)
        step = self.progress.step
        if self.ranks.is_main:
            mark = ", the best so far" if is_best else ""
            self.log.say(evaluation.text)
            self.log.say(f"step {step}: {self._monitored(evaluation.figure)}{mark}")
            speed = {"images_per_second": evaluation.images_per_second}
            self.log.evaluation(step, {**evaluation.figures, **speed}, evaluation.pictures)
        self.save()
        self._window = _Window()

    def evaluated_model(self) -> nn.Module:
        """The averaged weights with the statistics of the trained ones, if averaging is on."""
        if self.ema is None:
            return self.model
        averaged = self.ema.module
        for ours, theirs in zip(averaged.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)
        return averaged

    def _monitored(self, figure: float) -> str:
        return f"{self.evaluator.monitor} {figure:.4f}"

    def _take_note(self, figure: float, figures: dict[str, float]) -> bool:
        progress = self.progress
        progress.evaluated_step, progress.figures = progress.step, dict(figures)
        if progress.best_figure is not None and not figure > progress.best_figure:
            progress.evaluations_since_best += 1
            return False
        progress.best_figure, progress.best_step = figure, progress.step
        progress.evaluations_since_best = 0
        return True

    def save(self) -> None:
        """Write ``last.pt``, and give it the name ``best.pt`` too where it is the best."""
        if not self.ranks.is_main:
            return
        save_checkpoint(self.folder / "last.pt", {**self.card, **self.state_dict()})
        self._name_best()

    def _name_best(self) -> None:
        progress = self.progress
        if progress.best_step == progress.step == progress.evaluated_step and progress.step:
            link_checkpoint(self.folder / "last.pt", self.folder / "best.pt")

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, as tensors and plain data."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state, exactly."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        if self.ranks.is_main:
            self._name_best()

    def _stop(self, interruption: Interruption) -> None:
        """Write a checkpoint of the last whole step and end."""
        self.optimizer.zero_grad(set_to_none=True)
        self._restore_unfinished()
        self.save()
        number = self.ranks.gather(interruption.signal_number)
        raise Interrupted(next(n for n in number if n is not None))

    def _restore_unfinished(self) -> None:
        if self._window.open_step:
            self._restore_buffers()

    def _out_of_memory(self) -> str:
        return (
            f"out of memory on {self.ranks.device} with training.micro_batch_size="
            f"{self.card['micro_batch_size']} and data.image_size={self.card['image_size_px']}: "
            "make training.micro_batch_size smaller (the result stays the same) or the images"
        )


def _in_parallel(model: nn.Module) -> DistributedDataParallel:
    """Average gradients over the ranks.

    Each rank's batch-norm statistics are its own until an evaluation takes rank 0's.
    """
    with warnings.catch_warnings():  # newer releases rename broadcast_buffers, older know no other
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


class _Window:
    """What happened since the last report."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0
        self._steps = 0
        self._terms: dict[str, Tensor] = {}
        self.open_step = False

    def waiting(self, stream: Iterator[Batch]) -> Batch:
        """The next batch; the time until it is there counts as waiting."""
        start = time.perf_counter()
        batch = next(stream)
        self._waited += time.perf_counter() - start
        self.open_step = True
        return batch

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count the loss of a step."""
        _add(self._terms, terms)
        self._steps += 1

    def close_step(self, images: int) -> None:
        """Count the images of a step."""
        self._images += images
        self.open_step = False

    def figures(self, ranks: Ranks) -> dict[str, float]:
        """Mean loss terms over steps and ranks, and the speed: the report's one wait."""
        terms = {}
        if self._steps:
            values = ranks.sum(torch.stack(list(self._terms.values())).double()) / self._steps
            terms = dict(zip(self._terms, values.tolist(), strict=True))
        seconds = time.perf_counter() - self._start
        return {
            "loss": sum(terms.values()) if terms else float("nan"),
            **{f"loss/{name}": value for name, value in terms.items()},
            "images_per_second": self._images / seconds,
            "data_wait_share": self._waited / seconds,
        }


def _add(totals: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    for name, term in terms.items():
        totals[name] = totals[name] + term if name in totals else term
