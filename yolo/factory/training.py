"""A whole training from a config, new or resumed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from yolo.config import Resolved, TaskConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.factory.anchors import settle_anchors
from yolo.factory.classification import build_classification
from yolo.factory.data import build_train_and_val, check_same_classes
from yolo.factory.detection import build_detection
from yolo.factory.learner import build_learner
from yolo.factory.optimizer import build_freeze, build_schedule
from yolo.factory.parts import Parts
from yolo.factory.resuming import (
    check_same_config,
    describe_origin,
    newest_whole_checkpoint,
    replace_damaged,
)
from yolo.models.layers import Preprocessing
from yolo.train.distributed import Ranks, share_batch_norm
from yolo.train.evaluation import Pictures
from yolo.train.freezing import Freeze
from yolo.train.logging import FolderLog, RunLog, SilentLog
from yolo.train.out_of_memory import explain_out_of_memory
from yolo.train.precision import Precision, choose_precision
from yolo.train.progress import Plan, Progress
from yolo.train.run_folder import create_run_folder, write_config
from yolo.train.run_lock import RunLock
from yolo.train.trainer import Trainer

TASKS: dict[str, Callable[..., Parts]] = {
    "detect": build_detection,
    "classify": build_classification,
}
"""``task`` in a config -> what builds its parts."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a new run and a resumed one have in common."""

    resolved: Resolved
    ranks: Ranks
    folder: Path
    log: RunLog
    lock: RunLock | None
    parts: Parts
    freeze: Freeze | None
    enough: float | None = None

    @property
    def config(self) -> TaskConfig:
        return self.resolved.config

    @property
    def micro_batch_size(self) -> int:
        """The config's, or this process's share of the batch where that is smaller."""
        training = self.config.training
        return min(training.micro_batch_size, -(-training.batch_size // self.ranks.world_size))


def build_trainer(
    resolved: Resolved,
    ranks: Ranks,
    *,
    name: str | None,
    enough: float | None = None,
    pictures: Pictures | None = None,
) -> Trainer:
    """A new training in a new run folder.

    Args:
        resolved: the config.
        ranks: this process among all; rank 0 makes the folder and speaks.
        name: the folder's name; None for date, time and the config's name.
        enough: the training ends once the monitored figure reaches it; None for the last step.
        pictures: draws what an evaluation shows; None draws nothing.

    Raises:
        UserError: data, weights, device or folder are at fault.
    """
    train, val = _open_data(resolved.config, ranks)
    resolved = ranks.broadcast(settle_anchors(resolved, train))  # CPUs differ in the last digit
    parts, freeze = _build_parts(
        resolved.config, train, val, ranks, pretrained=True, pictures=pictures
    )
    folder = None
    if ranks.is_main:
        directory = resolved.config.logging.directory
        folder = create_run_folder(directory, name=name, config_name=resolved.path.stem)
    folder = ranks.broadcast(folder)
    assert folder is not None
    with ExitStack() as undone:
        lock = _lock(folder, ranks, undone)
        log = _open_log(folder, resolved, ranks, Progress())
        undone.callback(log.close)
        run = _Run(
            resolved=resolved,
            ranks=ranks,
            folder=folder,
            log=log,
            lock=lock,
            parts=parts,
            freeze=freeze,
            enough=enough,
        )
        trainer = _assemble(run, precision=None)
        undone.pop_all()
        return trainer


def resume_trainer(
    folder: Path, resolved: Resolved, ranks: Ranks, *, pictures: Pictures | None = None
) -> Trainer:
    """The training of a run's folder, to go on from its ``last.pt``, exactly.

    Where that is damaged, it goes on from ``best.pt``.

    Args:
        folder: the run's.
        resolved: the run's own ``config.yaml``, with overrides of what may change.
        ranks: this process among all.
        pictures: draws what an evaluation shows; None draws nothing.

    Raises:
        UserError: another process trains this run, no checkpoint can be read, or config or data
            are not those it was trained with.
    """
    with ExitStack() as undone:
        lock = _lock(folder, ranks, undone)
        origin = newest_whole_checkpoint(folder)
        checkpoint, config = origin.content, resolved.config
        check_same_config(folder, checkpoint["config"], resolved.data)
        train, val = _open_data(config, ranks)
        ids, names = checkpoint["category_ids"], checkpoint["class_names"]
        check_same_classes(train, "train", ids, names, owner=str(origin.path))
        parts, freeze = _build_parts(config, train, val, ranks, pretrained=False, pictures=pictures)
        # which files, that are not read again, had decided
        parts.model.normalise.adopt(Preprocessing(**checkpoint["preprocessing"]))
        ranks.gather(None)  # all have read the checkpoint that rank 0 may now rename
        if ranks.is_main:
            replace_damaged(folder, origin)
        log = _open_log(folder, resolved, ranks, Progress(**checkpoint["progress"]))
        undone.callback(log.close)
        for line in describe_origin(origin, config):
            log.message(line)
        run = _Run(
            resolved=resolved,
            ranks=ranks,
            folder=folder,
            log=log,
            lock=lock,
            parts=parts,
            freeze=freeze,
        )
        trainer = _assemble(run, precision=Precision(**checkpoint["precision"]))
        trainer.load_state_dict(checkpoint)
        undone.pop_all()
        return trainer


def _lock(folder: Path, ranks: Ranks, undone: ExitStack) -> RunLock | None:
    """Rank 0's lock on the run, which the trainer keeps unless building it fails."""
    if not ranks.is_main:
        return None
    lock = RunLock(folder)
    undone.callback(lock.release)
    return lock


def _build_parts(
    config: TaskConfig,
    train: DetectionDataset,
    val: DetectionDataset,
    ranks: Ranks,
    *,
    pretrained: bool,
    pictures: Pictures | None,
) -> tuple[Parts, Freeze | None]:
    """What is trained on what, and what of it keeps its weights."""
    build = TASKS[config.task]
    parts = build(config, train, val, ranks, pretrained=pretrained, pictures=pictures)
    if config.training.sync_batch_norm:
        share_batch_norm(parts.model, ranks)  # before anything holds on to the layers
    return parts, build_freeze(config, parts.model)


def _open_data(config: TaskConfig, ranks: Ranks) -> tuple[DetectionDataset, DetectionDataset]:
    """Training and validation set, once the number of processes has proved possible."""
    if config.training.batch_size < ranks.world_size:
        raise UserError(
            f"training.batch_size: {config.training.batch_size} images cannot be shared among "
            f"{ranks.world_size} processes; use fewer devices or a larger batch"
        )
    return build_train_and_val(config)


def _open_log(folder: Path, resolved: Resolved, ranks: Ranks, progress: Progress) -> RunLog:
    """Rank 0 writes the config down, as it is from now on, and keeps the log."""
    if not ranks.is_main:
        return SilentLog()
    write_config(folder, resolved)
    return FolderLog(
        folder=folder,
        steps=resolved.config.training.steps,
        start_step=progress.step,
        evaluated_step=progress.evaluated_step,
    )


def _assemble(run: _Run, *, precision: Precision | None) -> Trainer:
    """Put the parts together; a resumed run brings the precision that was chosen at its start."""
    config, ranks, parts = run.config, run.ranks, run.parts
    advice = "make training.micro_batch_size or data.image_size smaller"
    with explain_out_of_memory(ranks.device, advice):
        model = parts.model.to(ranks.device)
        parts.loss.to(ranks.device)  # its coder with it
        if precision is None:
            precision = _choose_precision(run, model)
    if config.training.compile:
        model.compile()
    _introduce(run, precision)
    learner = build_learner(
        config,
        parts,
        freeze=run.freeze,
        precision=precision,
        ranks=ranks,
        schedule=build_schedule(config),
        images_per_step=config.training.batch_size,
    )
    return Trainer(
        learner=learner,
        batches=parts.batches,
        evaluator=parts.evaluator(precision),
        plan=_build_plan(config, run.enough),
        ranks=ranks,
        folder=run.folder,
        log=run.log,
        metadata=_build_metadata(run, precision),
        lock=run.lock,
    )


def _choose_precision(run: _Run, model: nn.Module) -> Precision:
    """Rank 0 measures, all ranks obey."""
    chosen = None
    if run.ranks.is_main:
        chosen = choose_precision(
            run.config.training.precision,
            model=model,
            device=run.ranks.device,
            images=run.micro_batch_size,
            size_px=run.config.data.image_size,
        )
    chosen = run.ranks.broadcast(chosen)
    assert chosen is not None
    return chosen


def _build_plan(config: TaskConfig, enough: float | None) -> Plan:
    training = config.training
    return Plan(
        steps=training.steps,
        evaluate_every=config.evaluation.every,
        checkpoint_every=training.checkpoint_every,
        log_every=config.logging.every,
        patience=training.patience,
        enough=enough,
        max_skipped=training.max_skipped,
    )


def _build_metadata(run: _Run, precision: Precision) -> dict[str, Any]:
    """What a checkpoint tells about itself, as plain data."""
    return {
        "config": run.resolved.data,
        "precision": asdict(precision),
        "image_size_px": run.config.data.image_size,
        "micro_batch_size": run.micro_batch_size,
        "torch": importlib.metadata.version("torch"),
        **run.parts.full_metadata,
    }


def _introduce(run: _Run, precision: Precision) -> None:
    """Say what is about to be trained, on what and how."""
    config, parts, log = run.config, run.parts, run.log.message
    parameters = sum(parameter.numel() for parameter in parts.model.parameters())
    log(f"run folder: {run.folder}")
    log(f"model: {parts.title}, {parameters:,} parameters, {config.data.image_size} px")
    for report in parts.load_reports:
        for line in report.lines():
            log(line)
    log(f"device: {run.ranks.device}, {run.ranks.world_size} process(es)")
    log(f"precision: {precision.name} ({precision.reason})")
    if run.micro_batch_size < config.training.micro_batch_size:
        log(
            f"training.micro_batch_size: {config.training.micro_batch_size} cut to "
            f"{run.micro_batch_size}, this process's share of training.batch_size "
            f"{config.training.batch_size}"
        )
    if config.training.sync_batch_norm and run.ranks.world_size == 1:
        log("training.sync_batch_norm: changes nothing, for one process has the whole batch")
    for line in parts.data_lines:
        log(line)
