"""A whole training from a config, new or resumed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolo.config import ConfigError, Resolved, TaskConfig, config_from_dict, resolved_yaml
from yolo.errors import UserError
from yolo.factory.anchors import settle_anchors
from yolo.factory.data import build_train_and_val, check_same_classes, naming
from yolo.factory.learner import build_learner, build_schedule, micro_batch_size
from yolo.factory.tasks import Parts, build_parts
from yolo.models.layers import Preprocessing
from yolo.train.distributed import Ranks, share_batch_norm
from yolo.train.failures import Advice
from yolo.train.learner import Learner
from yolo.train.log import FolderLog, RunLog
from yolo.train.precision import Precision
from yolo.train.progress import Pictures, Plan, Progress
from yolo.train.run_folder import (
    Origin,
    RunLock,
    check_same_config,
    create_run_folder,
    describe_new_length,
    newest_whole_checkpoint,
    replace_damaged,
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
) -> Trainer:
    """A new training in a new run folder, or that of an old one, to go on with exactly.

    Args:
        resolved: the config; of an old run its own, with overrides of what may change.
        ranks: this process among all; rank 0 makes the folder and prints.
        name: the new folder's name; None for date, time and the config's name.
        resume: the old run's folder; it goes on from its ``last.pt``, or where that is damaged from
            its ``best.pt``.
        pictures: draws what an evaluation shows; None draws nothing.

    Raises:
        UserError: data, weights, device or folder are at fault; another process trains this run,
            no checkpoint can be read, or config or data are not those it was trained with.
    """
    folder, lock, origin = resume, None, None
    with ExitStack() as undone:
        if folder is not None:
            lock = _lock(folder, ranks, undone)
            origin = _read_origin(folder, resolved)
        resolved, parts = _build_parts(resolved, ranks, origin, pictures)
        precision = None if origin is None else Precision(**origin.content["precision"])
        learner = build_learner(resolved.config, parts, ranks, precision=precision)
        if folder is None:
            folder = _create_folder(resolved, ranks, name)
            lock = _lock(folder, ranks, undone)
        log = _open_log(folder, resolved, ranks, origin, pictures)
        undone.callback(log.close)
        for line in _introduction(folder, resolved.config, parts, learner, ranks, origin):
            log.message(line)
        trainer = _assemble(resolved, parts, learner, ranks, folder=folder, log=log, lock=lock)
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


def _read_origin(folder: Path, resolved: Resolved) -> Origin:
    origin = newest_whole_checkpoint(folder)
    before, now = origin.content["config"], resolved.data
    check_same_config(folder, with_defaults(before), with_defaults(now))
    return origin


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """A config with the default of each setting that it lacks, for the setting is younger."""
    try:
        return config_from_dict(data).model_dump(mode="json")
    except ConfigError:  # not one of this version's: the differences show
        return data


def _build_parts(
    resolved: Resolved, ranks: Ranks, origin: Origin | None, pictures: Pictures | None
) -> tuple[Resolved, Parts]:
    """What is trained on what; anchors that were to be fitted are numbers in the config then."""
    training = resolved.config.training
    if training.batch_size < ranks.world_size:
        raise UserError(
            f"training.batch_size: {training.batch_size} images cannot be shared among "
            f"{ranks.world_size} processes; use fewer devices or a larger batch"
        )
    train, val = build_train_and_val(resolved.config)
    if origin is None:
        resolved = ranks.broadcast(settle_anchors(resolved, train))  # CPUs differ in the last digit
    else:
        ids, names = origin.content["category_ids"], origin.content["class_names"]
        check_same_classes(train, "train", ids, names, owner=str(origin.path))
    parts = build_parts(
        resolved.config, train, val, ranks, pretrained=origin is None, pictures=pictures
    )
    if training.sync_batch_norm:
        with naming("training.sync_batch_norm"):
            share_batch_norm(parts.model, ranks)  # before anything holds on to the layers
    if origin is not None:  # which files, that are not read again, had decided
        parts.model.normalise.adopt(Preprocessing(**origin.content["preprocessing"]))
    return resolved, parts


def _create_folder(resolved: Resolved, ranks: Ranks, name: str | None) -> Path:
    folder = None
    if ranks.is_main:
        directory = resolved.config.logging.directory
        folder = create_run_folder(directory, name=name, config_name=resolved.path.stem)
    folder = ranks.broadcast(folder)
    assert folder is not None
    return folder


def _open_log(
    folder: Path,
    resolved: Resolved,
    ranks: Ranks,
    origin: Origin | None,
    pictures: Pictures | None,
) -> RunLog:
    """Rank 0 writes the config down, as it is from now on, and keeps the log."""
    progress = Progress()
    if origin is not None:
        progress = Progress(**origin.content["progress"])
        ranks.gather(None)  # all have read the checkpoint that rank 0 may now rename
        if ranks.is_main:
            replace_damaged(folder, origin)
    if not ranks.is_main:
        return RunLog()
    write_config(folder, resolved_yaml(resolved))
    return FolderLog(
        folder=folder,
        steps=resolved.config.training.steps,
        start_step=progress.step,
        evaluated_step=progress.evaluated_step,
        save_pictures=None if pictures is None else pictures.save,
    )


def _assemble(
    resolved: Resolved,
    parts: Parts,
    learner: Learner,
    ranks: Ranks,
    *,
    folder: Path,
    log: RunLog,
    lock: RunLock | None,
) -> Trainer:
    config = resolved.config
    if config.training.compile:
        learner.model.compile()
    plan = Plan(
        steps=config.training.steps,
        evaluate_every=config.evaluation.every,
        checkpoint_every=config.training.checkpoint_every,
        log_every=config.logging.every,
        patience=config.training.patience,
        max_skipped=config.training.max_skipped,
    )
    metadata = {
        "config": resolved.data,
        "precision": asdict(learner.precision),
        "image_size_px": config.data.image_size,
        "micro_batch_size": micro_batch_size(config, ranks),
        "torch": importlib.metadata.version("torch"),
        **parts.metadata,
    }
    return Trainer(
        learner=learner,
        batches=parts.batches,
        evaluator=parts.evaluator(precision=learner.precision),
        plan=plan,
        ranks=ranks,
        folder=folder,
        log=log,
        metadata=metadata,
        advice=_build_advice(config, ranks),
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
    )


def _introduction(
    folder: Path,
    config: TaskConfig,
    parts: Parts,
    learner: Learner,
    ranks: Ranks,
    origin: Origin | None,
) -> Iterator[str]:
    """What is about to be trained, on what and how, in lines for people."""
    if origin is not None:
        yield from describe_origin(origin, config)
    training, micro_batch = config.training, micro_batch_size(config, ranks)
    parameters = sum(parameter.numel() for parameter in parts.model.parameters())
    yield f"run folder: {folder}"
    yield f"model: {parts.title}, {parameters:,} parameters, {config.data.image_size} px"
    for report in parts.load_reports:
        yield from report.lines()
    yield f"device: {ranks.device}, {ranks.world_size} process(es)"
    yield f"precision: {learner.precision.name} ({learner.precision.reason})"
    if micro_batch < training.micro_batch_size:
        yield (
            f"training.micro_batch_size: {training.micro_batch_size} cut to {micro_batch}, this "
            f"process's share of training.batch_size {training.batch_size}"
        )
    if training.sync_batch_norm and ranks.world_size == 1:
        yield "training.sync_batch_norm: changes nothing, for one process has the whole batch"
    yield from parts.data_lines


def describe_origin(origin: Origin, config: TaskConfig) -> Iterator[str]:
    """What to know of where a run goes on from, in lines for people."""
    step = origin.content["progress"]["step"]

    def rate(data: Mapping[str, Any]) -> float:
        config = config_from_dict(dict(data))
        return config.training.optimizer.learning_rate * build_schedule(config)(step)

    if origin.complaint is not None:
        yield origin.complaint
    before = with_defaults(origin.content["config"])
    yield from describe_new_length(before, config.model_dump(mode="json"), step, rate)
