"""The loop: steps, reports, evaluations, checkpoints. It knows no detection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from yolo.data.formats.detection import first_names
from yolo.data.loader import TrainingBatches
from yolo.errors import UserError
from yolo.records import Batch
from yolo.train.checkpoint import link_checkpoint, save_checkpoint
from yolo.train.distributed import Ranks, lost_rank
from yolo.train.failures import (
    MOST_NAMED,
    Advice,
    explain_out_of_memory,
    explain_single_value,
    find_nonfinite,
)
from yolo.train.interruption import Interrupted, Interruption, WaitEnded
from yolo.train.learner import Learner, StepResult
from yolo.train.log import RunLog
from yolo.train.progress import Evaluator, Plan, Progress, Window
from yolo.train.run_folder import RunLock


@dataclass(kw_only=True, eq=False, repr=False)
class Trainer:
    """Train a model, counted in optimizer steps."""

    learner: Learner
    batches: TrainingBatches
    evaluator: Evaluator
    plan: Plan
    ranks: Ranks
    folder: Path  # the run's, for ``last.pt`` and ``best.pt``
    log: RunLog
    metadata: dict[str, Any]  # plain, in every checkpoint, to be read without the config
    advice: Advice = field(default_factory=Advice)
    lock: RunLock | None = None  # keeps other runs out of the folder until ``fit`` ends
    progress: Progress = field(default_factory=Progress, init=False)
    _window: Window = field(default_factory=Window, init=False)
    _saved_step: int = field(default=0, init=False)

    def fit(self) -> Progress:
        """Train to the last step or until patience ends; raises ``Interrupted`` after a signal."""
        # signals are caught to the end, that a second one leaves no worker behind; all is closed in
        # reverse order, whatever becomes of one of them
        with Interruption() as interruption, ExitStack() as closing:
            if self.lock is not None:
                closing.callback(self.lock.release)
            closing.callback(self.log.close)
            closing.callback(self.batches.close)
            try:
                self._fit(interruption)
            except WaitEnded:
                self._stop(interruption, alone=True)
            except RuntimeError as error:
                # another rank may have stopped alone
                if not interruption() or lost_rank(error, self.ranks) is None:
                    raise
                self._stop(interruption, alone=True)
        return self.progress

    def _fit(self, interruption: Interruption) -> None:
        progress, stream = self.progress, None
        if progress.step >= self.plan.steps:
            advice = self.advice.finished
            self.log.message(f"{self.folder}: finished already, at step {progress.step}; {advice}")
        self._report_freezing(starting=True)
        while True:
            step, plan = progress.step, self.plan
            is_due = step % plan.evaluate_every == 0 or step == plan.steps
            if is_due and step > progress.evaluated_step:
                self._evaluate(interruption)
            if self._is_over():
                break
            if stream is None:
                # of several ranks each ends the step, if it can, that the others are in too
                patience_s = 0.0 if self.ranks.world_size == 1 else 1.0
                batches = self.batches.from_step(progress.step)
                stream = interruption.heed(batches, patience_s=patience_s)
                self._window = Window()
            self._step(stream)
            if self.ranks.any(interruption()):
                self._stop(interruption)
            if progress.step % self.plan.checkpoint_every == 0:
                self.save()
        if progress.best_figure is not None:
            best = f"best {self._monitored(progress.best_figure)} at step {progress.best_step}"
            self.log.message(f"{best}: {self.folder / 'best.pt'}")

    def _report_freezing(self, *, starting: bool) -> None:
        freeze = self.learner.freeze
        if line := freeze and freeze.describe(self.progress.step, starting=starting):
            self.log.message(line)

    def _step(self, stream: Iterator[Batch]) -> None:
        """One optimizer step; one that lacks a batch when a signal comes is as if not begun."""
        count = self.batches.micro_batches_per_step
        with (
            self._rescuing(),
            explain_out_of_memory(self.ranks.device, self.advice.step_memory),
            explain_single_value(self.advice.single_value),
        ):
            micro_batches = self._window.fetch(stream, count)
            result = self.learner.step(self.progress.step, micro_batches, count)
        self._report_freezing(starting=False)
        images, norm = self.learner.images_in_step, result.gradient_norm
        self._window.add(result.terms, result.counts, images, norm)
        self.progress.step += 1
        if result.faults:
            self._note_skip(result)
        else:
            self.progress.skipped_in_a_row = 0
        self._report()
        most, skipped = self.plan.max_skipped, self.progress.skipped_in_a_row
        if result.faults and most is not None and skipped >= most:
            self.save()
            raise UserError(
                f"stopped at step {self.progress.step}: {skipped} steps in a row were not finite, "
                f"the last one for {'; '.join(result.faults)}; {self.advice.not_finite}"
            )

    def _note_skip(self, result: StepResult) -> None:
        """Count a skipped step; one more search for the fp16 scale is no failure yet."""
        progress, scale, what = self.progress, self.learner.scaler.get_scale(), "skipped"
        if result.backed_off:
            progress.scaler_backoffs += 1
            what = f"fp16 scale lowered to {scale:g}"
        else:
            progress.skipped_steps += 1
        if not result.backed_off or scale < 1:
            progress.skipped_in_a_row += 1
        faults = "; ".join(result.faults)
        self.log.message(f"step {progress.step - 1}: {what}, not finite: {faults}")

    def _report(self) -> None:
        step = self.progress.step
        self.log.progress(step)
        if step % self.plan.log_every and step not in (1, self.plan.steps):
            return
        figures = self._window.figures(self.ranks)
        self._check_place()
        figures.update(self.learner.learning_rates)
        figures["skipped_steps"] = self.progress.skipped_steps
        figures["scaler_backoffs"] = self.progress.scaler_backoffs
        images_left = (self.plan.steps - step) * self.learner.images_in_step
        seconds_left = images_left / figures["images_per_second"]
        self.log.training(step, figures, seconds_left=seconds_left)
        self._window = Window()

    def _evaluate(self, interruption: Interruption) -> None:
        advice, step = self.advice.evaluation_memory, self.progress.step
        with self._rescuing(), explain_out_of_memory(self.ranks.device, advice):
            evaluation = self.evaluator.evaluate(self.learner.evaluated_model(), interruption)
        if evaluation is None:
            self._stop(interruption)
        self.progress.note(evaluation.figure, evaluation.figures)
        self.log.message(evaluation.text)
        if evaluation.figure is None:
            self.log.message(f"step {step}: no figure, for {self.evaluator.monitor} has no truth")
        else:
            self.learner.note_figure(evaluation.figure)
            mark = ", the best so far" if self.progress.is_best else ""
            self.log.message(f"step {step}: {self._monitored(evaluation.figure)}{mark}")
        speed = {"images_per_second": evaluation.images_per_second}
        self._check_place()
        self.log.evaluation(step, {**evaluation.figures, **speed}, evaluation.pictures)
        self.save()
        self._window = Window()

    def _is_over(self) -> bool:
        plan, progress = self.plan, self.progress
        if progress.step >= plan.steps:
            return True
        best, target = progress.best_figure, plan.target_figure
        if best is not None and target is not None and best >= target:
            self.log.message(f"stopped: {self._monitored(best)} has reached {target:g}")
            return True
        if plan.patience is not None and progress.evaluations_since_best >= plan.patience:
            self.log.message(
                f"stopped: {self.evaluator.monitor} has not risen for {plan.patience} evaluations "
                f"since step {progress.best_step}; {self.advice.patience}"
            )
            return True
        return False

    def _monitored(self, figure: float) -> str:
        return f"{self.evaluator.monitor} {figure:.4f}"

    def save(self) -> None:
        """Write ``last.pt``, and give it the name ``best.pt`` too where it is the best.

        On all ranks a ``UserError`` where the state is not finite.
        """
        state = self.state_dict()
        bad = find_nonfinite(state)
        if self.ranks.any(bool(bad)):
            names = first_names(next(filter(None, self.ranks.gather(bad))), MOST_NAMED)
            raise UserError(
                f"{self.folder / 'last.pt'}: not written at step {self.progress.step}, for what "
                f"was learnt is no longer finite ({names}); the files from before are "
                "whole: go on with --resume, or begin anew with a smaller learning rate"
            )
        if self.ranks.is_main:
            self._write(state)

    def _check_place(self) -> None:
        """Before anything is written: another run's folder may stand there by now."""
        if self.lock is not None:
            self.lock.check_place()

    def _write(self, state: dict[str, Any]) -> None:
        self._check_place()
        save_checkpoint(self.folder / "last.pt", {**self.metadata, **state})
        self._saved_step = self.progress.step
        self._name_best()

    def _name_best(self) -> None:
        if self.progress.is_best:
            link_checkpoint(self.folder / "last.pt", self.folder / "best.pt")

    @contextmanager
    def _rescuing(self) -> Iterator[None]:
        """Where a step or an evaluation fails, for an image perhaps, keep the whole steps before.

        Only this rank may fail, so this asks no other; rank 0 writes.
        """
        try:
            yield
        except Exception:
            is_new = self.progress.step > self._saved_step
            if is_new and self.ranks.is_main and self.learner.is_whole:
                with suppress(Exception):  # the failure at hand is the one to report
                    state, step = self.state_dict(), self.progress.step
                    if not find_nonfinite(state):
                        self._write(state)
                        last = self.folder / "last.pt"
                        self.log.message(f"{last}: keeps what was learnt until step {step}")
            raise

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, as tensors and plain data."""
        return {**self.learner.state_dict(), "progress": asdict(self.progress)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of ``last.pt``, exactly; a kill may have come before ``best.pt``."""
        try:
            with explain_out_of_memory(self.ranks.device, self.advice.step_memory):
                self.learner.load_state_dict(state)
        except UserError:
            raise
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise UserError(
                f"{self.folder / 'last.pt'}: its state is not of this training; begin anew"
            ) from error
        self.progress = Progress(**state["progress"])
        self._saved_step = self.progress.step
        if self.ranks.is_main:
            self._name_best()

    def _stop(self, interruption: Interruption, *, alone: bool = False) -> NoReturn:
        """Write a checkpoint of the last whole step and end, on all ranks or without the others."""
        if alone:
            self.ranks = replace(self.ranks, world_size=1)  # it exchanges nothing any more
        if self.learner.is_whole:
            self.save()
        numbers = self.ranks.gather(interruption.signal_number)
        number = next(number for number in numbers if number is not None)
        raise Interrupted(number, self.progress.step, self.folder, alone=alone)
