"""A whole training from a config, new or resumed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from yolo.build.classification import build_classification
from yolo.build.data import check_same_classes
from yolo.build.detection import build_detection
from yolo.build.optimizer import build_freeze, build_optimizer, build_schedule
from yolo.build.parts import Parts
from yolo.build.resuming import check_same_config
from yolo.build.run import create_run_folder
from yolo.config import Resolved, TaskConfig, resolved_yaml
from yolo.engine.checkpoint import load_checkpoint
from yolo.engine.distributed import Ranks
from yolo.engine.freezing import Freeze
from yolo.engine.learner import Learner
from yolo.engine.logging import FolderLog, RunLog, SilentLog
from yolo.engine.out_of_memory import explain_out_of_memory
from yolo.engine.precision import Precision, choose_precision
from yolo.engine.progress import Plan
from yolo.engine.trainer import Trainer
from yolo.errors import UserError
from yolo.models.layers import Preprocessing

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
    parts: Parts
    freeze: Freeze | None

    @property
    def config(self) -> TaskConfig:
        return self.resolved.config

    @property
    def micro_batch_size(self) -> int:
        """The config's, or this process's share of the batch where that is smaller."""
        training = self.config.training
        return min(training.micro_batch_size, -(-training.batch_size // self.ranks.world_size))


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
    parts, freeze = _build_parts(config, ranks, pretrained=True)
    folder = None
    if ranks.is_main:
        directory = config.logging.directory
        folder = create_run_folder(directory, name=name, config_name=resolved.path.stem)
    folder = ranks.broadcast(folder)
    assert folder is not None
    log = _open_log(folder, resolved, ranks, start_step=0)
    run = _Run(resolved=resolved, ranks=ranks, folder=folder, log=log, parts=parts, freeze=freeze)
    return _assemble(run, precision=None)


def resume_trainer(folder: Path, resolved: Resolved, ranks: Ranks) -> Trainer:
    """The training of a run's folder, to go on from its ``last.pt``, exactly.

    Args:
        folder: the run's.
        resolved: the run's own ``config.yaml``, with overrides of what may change.
        ranks: this process among all.

    Raises:
        UserError: the checkpoint cannot be read, or config or data are not those it was trained
            with.
    """
    path = folder / "last.pt"
    checkpoint = load_checkpoint(path)
    check_same_config(folder, checkpoint["config"], resolved.data)
    parts, freeze = _build_parts(resolved.config, ranks, pretrained=False)
    ids, names = checkpoint["category_ids"], checkpoint["class_names"]
    check_same_classes(parts.train, "train", ids, names, owner=str(path))
    # which files, that are not read again, had decided
    parts.model.normalise.adopt(Preprocessing(**checkpoint["preprocessing"]))
    log = _open_log(folder, resolved, ranks, start_step=checkpoint["progress"]["step"])
    run = _Run(resolved=resolved, ranks=ranks, folder=folder, log=log, parts=parts, freeze=freeze)
    trainer = _assemble(run, precision=Precision(**checkpoint["precision"]))
    trainer.load_state_dict(checkpoint)
    return trainer


def _build_parts(
    config: TaskConfig, ranks: Ranks, *, pretrained: bool
) -> tuple[Parts, Freeze | None]:
    """All that can be at fault, and what of the model is frozen."""
    if config.training.batch_size < ranks.world_size:
        raise UserError(
            f"training.batch_size: {config.training.batch_size} images cannot be shared among "
            f"{ranks.world_size} processes; use fewer devices or a larger batch"
        )
    parts = TASKS[config.task](config, ranks, pretrained=pretrained)
    return parts, build_freeze(config, parts.model)


def _open_log(folder: Path, resolved: Resolved, ranks: Ranks, *, start_step: int) -> RunLog:
    """Rank 0 writes the config down, as it is from now on, and keeps the log."""
    if not ranks.is_main:
        return SilentLog()
    temporary = folder / "config.yaml.tmp"
    temporary.write_text(resolved_yaml(resolved))
    temporary.replace(folder / "config.yaml")
    steps = resolved.config.training.steps
    return FolderLog(folder=folder, steps=steps, start_step=start_step)


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
    learner = Learner(
        model=model,
        loss=parts.loss,
        accuracy=parts.accuracy,
        freeze=run.freeze,
        optimizer=build_optimizer(config, model),
        schedule=build_schedule(config),
        precision=precision,
        ranks=ranks,
        images_per_step=config.training.batch_size,
        gradient_clip=config.training.gradient_clip,
        ema_decay=None if config.training.ema is None else config.training.ema.decay,
        seed=config.seed,
    )
    return Trainer(
        learner=learner,
        batches=parts.batches,
        evaluator=parts.evaluator(precision),
        plan=_build_plan(config),
        ranks=ranks,
        folder=run.folder,
        log=run.log,
        card=_build_card(run, precision),
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


def _build_plan(config: TaskConfig) -> Plan:
    training = config.training
    return Plan(
        steps=training.steps,
        evaluate_every=config.evaluation.every,
        checkpoint_every=training.checkpoint_every,
        log_every=config.logging.every,
        patience=training.patience,
    )


def _build_card(run: _Run, precision: Precision) -> dict[str, Any]:
    """What a checkpoint tells about itself, as plain data."""
    normalise, train = run.parts.model.normalise, run.parts.train
    return {
        "config": run.resolved.data,
        "class_names": list(train.class_names),
        "category_ids": [int(i) for i in train.category_ids],
        "preprocessing": {
            "mean": normalise.mean.flatten().tolist(),
            "std": normalise.std.flatten().tolist(),
        },
        "precision": asdict(precision),
        "image_size_px": run.config.data.image_size,
        "micro_batch_size": run.micro_batch_size,
        "torch": importlib.metadata.version("torch"),
        **run.parts.card,
    }


def _introduce(run: _Run, precision: Precision) -> None:
    """Say what is about to be trained, on what and how."""
    config, parts, say = run.config, run.parts, run.log.say
    parameters = sum(parameter.numel() for parameter in parts.model.parameters())
    say(f"run folder: {run.folder}")
    say(f"model: {parts.title}, {parameters:,} parameters, {config.data.image_size} px")
    for report in parts.load_reports:
        for line in report.lines():
            say(line)
    say(f"device: {run.ranks.device}, {run.ranks.world_size} process(es)")
    say(f"precision: {precision.name} ({precision.reason})")
    if run.micro_batch_size < config.training.micro_batch_size:
        say(
            f"training.micro_batch_size: {config.training.micro_batch_size} cut to "
            f"{run.micro_batch_size}, this process's share of training.batch_size "
            f"{config.training.batch_size}"
        )
    for line in parts.data_lines:
        say(line)
