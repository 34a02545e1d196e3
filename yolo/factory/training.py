"""A whole training from a config, new or resumed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from yolo.config import Resolved, TaskConfig, resolved_yaml
from yolo.errors import UserError
from yolo.evaluate.evaluators import DetectionEvaluator
from yolo.factory.anchors import settle_anchors
from yolo.factory.data import build_dataset, match_classes, micro_batch_size, naming
from yolo.factory.learner import Parts, build_learner, build_parts
from yolo.factory.micro_batch import KEY, ORIGIN, settle_micro_batch
from yolo.factory.resume import check_same_config, describe_changed_data, describe_origin
from yolo.train.checkpoint import link_checkpoint
from yolo.train.distributed import Ranks, share_batch_norm
from yolo.train.failures import Advice
from yolo.train.launched import note_run, noted_run
from yolo.train.learner import Learner
from yolo.train.log import FolderLog, RunLog
from yolo.train.precision import Precision
from yolo.train.progress import Pictures, Plan, Progress
from yolo.train.run_folder import (
    Origin,
    RunLock,
    check_run_folder,
    create_run_folder,
    newest_whole_checkpoint,
    write_config,
)
from yolo.train.trainer import Trainer

SINGLE_VALUE = (
    "data.image_size: so small that the last map is a single cell, which batch norm cannot "
    "learn from in a micro-batch of one image; make data.image_size (or data.multi_scale.min) "
    "larger, or choose training.batch_size and training.micro_batch_size so that no process is "
    "left with a micro-batch of one image"
)


def build_trainer(
    resolved: Resolved,
    ranks: Ranks,
    *,
    name: str | None = None,
    resume: Path | None = None,
    pictures: Pictures | None = None,
    accept_changed_data: bool = False,
) -> Trainer:
    """A new training in a new run folder, or that of an old one, to go on with exactly.

    Args:
        resolved: the config; of an old run its own, with overrides of what may change.
        name: the new folder's name; None for date, time and the config's name.
        resume: the old run's folder; it goes on from its ``last.pt``, or where that is damaged from
            its ``best.pt``.
        accept_changed_data: go on with an old run though its data sets are not what they were.

    Raises:
        UserError: data, weights, device or folder are at fault; another process trains this run,
            no checkpoint can be read, or config or data are not those it was trained with.
    """
    folder, lock, origin = resume, None, None
    with ExitStack() as undone:
        if folder is not None:
            lock = _lock(folder, ranks, undone)
            origin = newest_whole_checkpoint(folder)
            check_same_config(folder, origin.content["config"], resolved.config)
        builder = _Builder(resolved, ranks, origin, pictures, accept_changed_data)
        if folder is None:
            builder.find_folder(name, check_run_folder)
        parts = builder.build_parts()
        precision = None if origin is None else Precision(**origin.content["precision"])
        learner = build_learner(builder.resolved.config, parts, ranks, precision=precision)
        if folder is None:
            create = partial(create_run_folder, config_name=resolved.path.stem)
            folder = ranks.broadcast(builder.find_folder(name, create))
            assert folder is not None
            note_run(folder)
            lock = _lock(folder, ranks, undone)
        log = builder.open_log(folder)
        undone.callback(log.close)
        for line in builder.introduction(folder, parts, learner):
            log.message(line)
        trainer = builder.assemble(parts, learner, folder, log, lock)
        if origin is not None:
            trainer.load_state_dict(origin.content)
        undone.pop_all()
        return trainer


def _lock(folder: Path, ranks: Ranks, undone: ExitStack) -> RunLock | None:
    """Rank 0's lock on the run, which the trainer keeps unless building it fails."""
    if not ranks.is_main:
        return None
    lock = RunLock(folder)
    undone.callback(lock.release)
    return lock


@dataclass
class _Builder:
    """The steps of ``build_trainer``, and what all of them look at."""

    resolved: Resolved  # what was ``auto`` is numbers once the parts are built
    ranks: Ranks
    origin: Origin | None
    pictures: Pictures | None
    accept_changed_data: bool
    fingerprints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    changes: Sequence[str] = ()  # of the data sets since the origin

    def build_parts(self) -> Parts:
        config, ranks, origin = self.resolved.config, self.ranks, self.origin
        if config.training.batch_size < ranks.world_size:
            raise UserError(
                f"training.batch_size: {config.training.batch_size} images cannot be shared among "
                f"{ranks.world_size} processes; use fewer devices or a larger batch"
            )
        train, val = build_dataset(config, "train"), build_dataset(config, "val")
        if origin is None:  # CPUs differ in the last digit
            self.resolved = ranks.broadcast(settle_anchors(self.resolved, train))
        else:
            ids, names = origin.content["category_ids"], origin.content["class_names"]
            train = match_classes(train, "train", ids, names, owner=str(origin.path))
        val = match_classes(val, "val", train.category_ids, train.class_names, owner="data.train")
        mine = {"train": train.fingerprint(), "val": val.fingerprint()} if ranks.is_main else {}
        self.fingerprints = ranks.broadcast(mine)
        if origin is not None:
            accepted = self.accept_changed_data
            self.changes = list(describe_changed_data(origin, self.fingerprints, accepted=accepted))
        self.resolved = settle_micro_batch(self.resolved, train, val, ranks)
        config = self.resolved.config
        parts = build_parts(config, train, val, ranks, origin=origin, pictures=self.pictures)
        if config.training.sync_batch_norm:
            with naming("training.sync_batch_norm"):
                share_batch_norm(parts.model, ranks)  # before anything holds on to the layers
        return parts

    def find_folder(self, name: str | None, find: Callable[..., Path | None]) -> Path | None:
        """What ``find(directory, name=name)`` gives on rank 0; a run of that name that torchrun
        began before, and that failed without a checkpoint, is taken again.
        """
        directory, before = self.resolved.config.logging.directory, noted_run()
        if before is not None and name is not None and before == (directory / name).absolute():
            return before
        try:
            return find(directory, name=name) if self.ranks.is_main else None
        except OSError as error:
            reason = f"no run can be written here ({error.strerror})"
            raise UserError(f"logging.directory: {directory}: {reason}") from error

    def open_log(self, folder: Path) -> RunLog:
        """Rank 0 writes the config down, as it is from now on, and keeps the log."""
        progress = Progress()
        if self.origin is not None:
            progress = Progress(**self.origin.content["progress"])
            self.ranks.gather(None)  # all have read the checkpoint that rank 0 may now rename
            if self.ranks.is_main and self.origin.complaint is not None:
                # else the damaged file would be taken for the best one, which is linked to it
                link_checkpoint(self.origin.path, folder / "last.pt")
        if not self.ranks.is_main:
            return RunLog()
        write_config(folder, resolved_yaml(self.resolved))
        return FolderLog(
            folder=folder,
            steps=self.resolved.config.training.steps,
            start_step=progress.step,
            evaluated_step=progress.evaluated_step,
            save_pictures=None if self.pictures is None else self.pictures.save,
        )

    def introduction(self, folder: Path, parts: Parts, learner: Learner) -> Iterator[str]:
        """What is about to be trained, on what and how, in lines for people."""
        config, ranks = self.resolved.config, self.ranks
        if self.origin is not None:
            yield from describe_origin(self.origin, config)
        yield from self.changes
        yield from (f"note: {note}" for note in self.resolved.notes)
        training, micro_batch = config.training, micro_batch_size(config, ranks)
        parameters = sum(parameter.numel() for parameter in parts.model.parameters())
        yield f"run folder: {folder}"
        yield f"model: {parts.title}, {parameters:,} parameters, {config.data.image_size} px"
        for report in parts.load_reports:
            yield from report.lines()
        yield f"device: {ranks.device}, {ranks.world_size} process(es)"
        yield f"precision: {learner.precision.name} ({learner.precision.reason})"
        if micro_batch != training.micro_batch_size:
            yield (
                f"training.micro_batch_size: {training.micro_batch_size} cut to {micro_batch}, "
                f"this process's share of training.batch_size {training.batch_size}"
            )
        if self.resolved.origins[KEY] == ORIGIN:
            yield f"{KEY}: {micro_batch}, {ORIGIN}"
        if training.sync_batch_norm and ranks.world_size == 1:
            yield "training.sync_batch_norm: changes nothing, for one process has the whole batch"
        yield from parts.data_lines
        size = training.batch_size
        epochs = training.steps * size / len(parts.train)
        yield f"training: {training.steps:,} steps of {size:,} images, {epochs:,.1f} epochs"

    def assemble(
        self, parts: Parts, learner: Learner, folder: Path, log: RunLog, lock: RunLock | None
    ) -> Trainer:
        config, evaluator = self.resolved.config, parts.evaluator(precision=learner.precision)
        if isinstance(evaluator, DetectionEvaluator) and not evaluator.has_truth():
            log.message(
                f"warning: data.val has nothing to find that {evaluator.monitor} could be measured "
                "on: best.pt will be the newest evaluated model, and training.patience and a "
                "plateau schedule do nothing; give data.val boxes, or choose another "
                "evaluation.monitor"
            )
        if config.training.compile:
            learner.model.compile()
        of_training = {"steps", "checkpoint_every", "patience", "max_skipped"}
        metadata = {
            "config": self.resolved.data,
            "precision": asdict(learner.precision),
            "image_size_px": config.data.image_size,
            "micro_batch_size": micro_batch_size(config, self.ranks),
            "torch": importlib.metadata.version("torch"),
            "data": self.fingerprints,
            **parts.metadata,
        }
        return Trainer(
            learner=learner,
            batches=parts.batches,
            evaluator=evaluator,
            plan=Plan(
                evaluate_every=config.evaluation.every,
                log_every=config.logging.every,
                **config.training.model_dump(include=of_training),
            ),
            ranks=self.ranks,
            folder=folder,
            log=log,
            metadata=metadata,
            advice=_build_advice(config, self.ranks),
            lock=lock,
        )


def _build_advice(config: TaskConfig, ranks: Ranks) -> Advice:
    return Advice(
        step_memory=(
            f"training.micro_batch_size is {micro_batch_size(config, ranks)} and data.image_size "
            f"{config.data.image_size}: make one of them smaller (training.batch_size can stay)"
        ),
        evaluation_memory=(
            "make evaluation.batch_size smaller; --resume goes on with the evaluation"
        ),
        single_value=SINGLE_VALUE,
        not_finite=(
            f"training.max_skipped is {config.training.max_skipped}; correct the data and go on "
            "with --resume, or begin anew with a smaller learning rate or a training.gradient_clip"
        ),
        finished=(
            "--resume with training.steps=N, where N is more than "
            f"{config.training.steps:,}, trains longer"
        ),
        patience="--resume with a larger training.patience goes on",
    )
