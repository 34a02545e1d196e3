"""A whole training from a config, new or resumed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from yolo.build.data import (
    build_dataset,
    build_evaluation_batches,
    build_training_batches,
    check_same_classes,
)
from yolo.build.detector import build_coder, build_detector, build_loss, build_postprocess
from yolo.build.run import create_run_folder
from yolo.coders.anchor import AnchorCoder
from yolo.config import Config, Resolved, resolved_yaml
from yolo.data.datasets.coco import CocoDataset
from yolo.engine.checkpoint import load_checkpoint
from yolo.engine.detection_evaluator import DetectionEvaluator
from yolo.engine.distributed import Ranks
from yolo.engine.host_memory import keep_freed_memory
from yolo.engine.learner import Learner
from yolo.engine.logging import FolderLog, RunLog, SilentLog
from yolo.engine.precision import Precision, choose_precision
from yolo.engine.progress import Plan
from yolo.engine.trainer import Trainer
from yolo.errors import UserError
from yolo.metrics.coco import CocoMetric
from yolo.models.detector import Detector
from yolo.optim.optimizers import adam, adamw, sgd
from yolo.optim.schedules import Schedule, cosine_restarts, step_schedule

FINDINGS_SHOWN = 5
"""Lines about boxes that were mended or dropped, for each data set."""

CHANGEABLE = ("training.steps", "training.patience", "evaluation.", "logging.", "data.workers")
"""Keys, or beginnings of keys, that a resumed run may change."""

FIXED = ("evaluation.monitor",)
"""Not even these: the best figure so far is one of its kind."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a new run and a resumed one have in common."""

    resolved: Resolved
    ranks: Ranks
    folder: Path
    train: CocoDataset
    val: CocoDataset
    log: RunLog

    @property
    def config(self) -> Config:
        return self.resolved.config


def build_trainer(resolved: Resolved, ranks: Ranks, *, name: str | None) -> Trainer:
    """A new training in a new run folder.

    Args:
        resolved: the config.
        ranks: this process among all; rank 0 makes the folder and speaks.
        name: the folder's name; None for date, time and the config's name.

    Raises:
        UserError: data, weights, device or folder are at fault.
    """
    config = resolved.config
    train, val = _open_data(config)
    detector = build_detector(config, train.class_names)
    folder = None
    if ranks.is_main:
        directory = config.logging.directory
        folder = create_run_folder(directory, name=name, config_name=resolved.path.stem)
        (folder / "config.yaml").write_text(resolved_yaml(resolved))
    folder = ranks.broadcast(folder)
    assert folder is not None
    log = _open_log(folder, config, ranks, start_step=0)
    run = _Run(resolved=resolved, ranks=ranks, folder=folder, train=train, val=val, log=log)
    return _assemble(run, detector, precision=None)


def resume_trainer(folder: Path, resolved: Resolved, ranks: Ranks) -> Trainer:
    """The training of a run's folder, to go on from its ``last.pt``, exactly.

    Args:
        folder: the run's.
        resolved: the run's own ``config.yaml``, with overrides of what ``CHANGEABLE`` names.
        ranks: this process among all.

    Raises:
        UserError: the checkpoint cannot be read, or the config is not the one it was trained with.
    """
    checkpoint = load_checkpoint(folder / "last.pt")
    _check_unchanged(folder, checkpoint["config"], resolved.data)
    config = resolved.config
    train, val = _open_data(config)
    log = _open_log(folder, config, ranks, start_step=checkpoint["progress"]["step"])
    run = _Run(resolved=resolved, ranks=ranks, folder=folder, train=train, val=val, log=log)
    detector = build_detector(config, train.class_names, pretrained=False)
    trainer = _assemble(run, detector, precision=Precision(**checkpoint["precision"]))
    trainer.load_state_dict(checkpoint)
    return trainer


def _check_unchanged(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = dict(_leaves(before)), dict(_leaves(now))
    changed = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and (key in FIXED or not key.startswith(CHANGEABLE))
    ]
    if changed:
        raise UserError(
            f"{folder}: a resumed run keeps its config, but this differs: {'; '.join(changed)}; "
            f"only {', '.join(CHANGEABLE)} may change"
        )


def _leaves(data: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _open_data(config: Config) -> tuple[CocoDataset, CocoDataset]:
    train, val = build_dataset(config, "train"), build_dataset(config, "val")
    check_same_classes(train, val, "val")
    return train, val


def _open_log(folder: Path, config: Config, ranks: Ranks, *, start_step: int) -> RunLog:
    if not ranks.is_main:
        return SilentLog()
    return FolderLog(folder=folder, steps=config.training.steps, start_step=start_step)


def _assemble(run: _Run, detector: Detector, *, precision: Precision | None) -> Trainer:
    """Put the parts together; a resumed run brings the precision that was chosen at its start."""
    config, ranks = run.config, run.ranks
    training = config.training
    if training.batch_size < ranks.world_size:
        raise UserError(
            f"training.batch_size: {training.batch_size} images cannot be shared among "
            f"{ranks.world_size} processes; use fewer devices or a larger batch"
        )
    if ranks.device.type == "cpu":
        keep_freed_memory()
    coder = build_coder(config).to(ranks.device)
    loss = build_loss(config, coder, run.train.class_names).to(ranks.device)
    detector = detector.to(ranks.device)
    micro_batch = min(training.micro_batch_size, -(-training.batch_size // ranks.world_size))
    if precision is None:
        precision = _choose_precision(run, detector, micro_batch)
    if training.compile:
        detector.compile()
    optimizer, schedule = build_optimizer(config, detector)
    _introduce(run, detector, precision, micro_batch)
    learner = Learner(
        model=detector,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        precision=precision,
        ranks=ranks,
        images_per_step=training.batch_size,
        gradient_clip=training.gradient_clip,
        ema_decay=None if training.ema is None else training.ema.decay,
        seed=config.seed,
    )
    return Trainer(
        learner=learner,
        batches=build_training_batches(config, run.train, ranks),
        evaluator=_build_evaluator(run, coder, loss, precision),
        plan=_build_plan(config),
        ranks=ranks,
        folder=run.folder,
        log=run.log,
        card=_build_card(run, detector, precision, micro_batch),
    )


def _choose_precision(run: _Run, detector: Detector, micro_batch: int) -> Precision:
    """Rank 0 measures, all ranks obey."""
    chosen = None
    if run.ranks.is_main:
        chosen = choose_precision(
            run.config.training.precision,
            model=detector,
            device=run.ranks.device,
            images=micro_batch,
            size_px=run.config.data.image_size,
        )
    chosen = run.ranks.broadcast(chosen)
    assert chosen is not None
    return chosen


def build_optimizer(config: Config, detector: Detector) -> tuple[torch.optim.Optimizer, Schedule]:
    """The optimizer, and the schedule as factors of its learning rate."""
    settings = config.training.optimizer.model_dump()
    optimizer = OPTIMIZERS[settings.pop("type")](detector, **settings)
    schedule = config.training.schedule
    if schedule.type == "step":
        factors = step_schedule(
            milestones=schedule.milestones,
            factors=schedule.factors,
            warmup_steps=schedule.warmup_steps,
        )
    else:
        factors = cosine_restarts(
            t_0=schedule.t_0,
            t_mult=schedule.t_mult,
            eta_min_ratio=schedule.eta_min / config.training.optimizer.learning_rate,
            warmup_steps=schedule.warmup_steps,
        )
    return optimizer, factors


def _build_evaluator(
    run: _Run, coder: AnchorCoder, loss: torch.nn.Module, precision: Precision
) -> DetectionEvaluator:
    evaluation = run.config.evaluation
    val = run.val.share(evaluation.share, seed=run.config.seed)
    metric = None
    if run.ranks.is_main:
        metric = CocoMetric(ground_truth=val.ground_truth(), backend=evaluation.backend)
    return DetectionEvaluator(
        batches=build_evaluation_batches(run.config, val, run.ranks),
        images=len(val),
        metric=metric,
        category_ids=run.train.category_ids,
        class_names=run.train.class_names,
        monitor=evaluation.monitor,
        coder=coder,
        postprocess=build_postprocess(run.config),
        loss=loss,
        precision=precision,
        ranks=run.ranks,
        pictures=evaluation.pictures,
        per_class=evaluation.per_class,
    )


def _build_plan(config: Config) -> Plan:
    training = config.training
    return Plan(
        steps=training.steps,
        evaluate_every=config.evaluation.every,
        checkpoint_every=training.checkpoint_every,
        log_every=config.logging.every,
        patience=training.patience,
    )


def _build_card(
    run: _Run, detector: Detector, precision: Precision, micro_batch: int
) -> dict[str, Any]:
    """What a checkpoint tells about itself, as plain data."""
    normalise = detector.normalise
    return {
        "config": run.resolved.data,
        "class_names": list(run.train.class_names),
        "category_ids": [int(i) for i in run.train.category_ids],
        "anchors_px": [list(anchor) for anchor in run.config.model.head.anchors],
        "preprocessing": {
            "mean": normalise.mean.flatten().tolist(),
            "std": normalise.std.flatten().tolist(),
        },
        "precision": asdict(precision),
        "image_size_px": run.config.data.image_size,
        "micro_batch_size": micro_batch,
        "torch": importlib.metadata.version("torch"),
    }


def _introduce(run: _Run, detector: Detector, precision: Precision, micro_batch: int) -> None:
    """Say what is about to be trained, on what and how."""
    config, say = run.config, run.log.say
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    say(f"run folder: {run.folder}")
    say(
        f"model: {config.model.encoder.type}, {parameters:,} parameters, "
        f"{len(run.train.class_names)} classes, {config.data.image_size} px"
    )
    say(f"device: {run.ranks.device}, {run.ranks.world_size} process(es)")
    say(f"precision: {precision.name} ({precision.reason})")
    if micro_batch < config.training.micro_batch_size:
        say(
            f"training.micro_batch_size: {config.training.micro_batch_size} cut to {micro_batch}, "
            f"this process's share of training.batch_size {config.training.batch_size}"
        )
    for name, dataset in (("train", run.train), ("val", run.val)):
        boxes = int(dataset.annotations.box_counts().sum())
        say(f"data.{name}: {len(dataset):,} images, {boxes:,} boxes")
        _list_findings(say, dataset)


def _list_findings(say: Callable[[str], None], dataset: CocoDataset) -> None:
    findings = dataset.findings
    for kind, count in findings.counts.items():
        say(f"  {count:,} {kind}")
    for text in findings.texts[:FINDINGS_SHOWN]:
        say(f"    {text}")
    if len(findings.texts) > FINDINGS_SHOWN:
        say(f"    and {len(findings.texts) - FINDINGS_SHOWN:,} more")
