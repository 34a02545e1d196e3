"""What is trained, of either task, and what trains it, from a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from yolo.config import Config, TaskConfig
from yolo.config.schema.training import CosineRestartsConfig, LinearScheduleConfig, OneCycleConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.data.loader import TrainingBatches
from yolo.detection.losses.loss import ClassificationLoss
from yolo.evaluate.metrics.metric import top_k
from yolo.factory.anchors import describe_anchors
from yolo.factory.data import build_training_batches, micro_batch_size, naming
from yolo.factory.detector import anchors_px, build_coder, build_loss
from yolo.factory.evaluator import accuracy_of, build_classification_evaluator, build_evaluator
from yolo.factory.initial_weights import build_model, check_weights, load_initial_weights
from yolo.models.detector import Classifier, Detector
from yolo.models.torch_weights import LoadReport, stored_preprocessing
from yolo.train.distributed import Ranks
from yolo.train.failures import explain_out_of_memory
from yolo.train.freezing import Freeze
from yolo.train.learner import Learner
from yolo.train.optimizers import adam, adamw, sgd
from yolo.train.precision import Precision, choose_precision
from yolo.train.progress import Evaluator, Pictures
from yolo.train.run_folder import Origin
from yolo.train.schedules import (
    Plateau,
    Schedule,
    cosine_restarts,
    linear,
    one_cycle,
    step_schedule,
)

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": adam, "adamw": adamw, "sgd": sgd}

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "step": step_schedule,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "linear": linear,
    "plateau": Plateau,
}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that can be at fault in a config or its data, built before a run's folder is made."""

    title: str  # the model in a few words
    model: Detector | Classifier  # with its initial weights
    loss: nn.Module
    accuracy: Callable[[Any, Any], dict[str, Tensor]]  # counted while training
    batches: TrainingBatches  # this rank's
    train: DetectionDataset  # defines what the labels mean
    evaluator: Callable[..., Evaluator]  # of ``precision``, once the loss is on its device
    data_lines: Sequence[str]  # about the data sets, for the run's introduction
    task_metadata: Mapping[str, Any]  # of the task, for checkpoints
    load_reports: Sequence[LoadReport]

    @property
    def metadata(self) -> dict[str, Any]:
        """Plain data for every checkpoint: what labels, pixels and the task's numbers mean."""
        normalise = self.model.normalise
        return {
            "class_names": list(self.train.class_names),
            "category_ids": list(self.train.category_ids),
            "preprocessing": {
                "mean": normalise.mean.flatten().tolist(),
                "std": normalise.std.flatten().tolist(),
            },
            **self.task_metadata,
        }


def build_parts(
    config: TaskConfig,
    train: DetectionDataset,
    val: DetectionDataset,
    ranks: Ranks,
    *,
    origin: Origin | None = None,
    pictures: Pictures | None = None,
) -> Parts:
    """Everything that training on a task needs.

    ``origin`` is what an old run goes on from, instead of the config's initial weights.
    """
    names, kind = train.class_names, config.model.encoder.type
    model, reports = _build_model(config, names, origin)
    batches = build_training_batches(config, train, ranks)
    of_run = (val.share(config.evaluation.share, seed=config.seed), ranks)
    lines = [*describe_data(config, "train", train), *describe_data(config, "val", val)]
    loss: nn.Module
    evaluator: Callable[..., Evaluator]
    if isinstance(config, Config):
        title, coder = f"{kind} + {config.model.neck.type}", build_coder(config)
        loss = of_boxes = build_loss(config, coder, names)
        accuracy, metadata = accuracy_of(of_boxes), {"anchors_px": anchors_px(config)}
        evaluator = partial(build_evaluator, config, *of_run, coder=coder)
        lines += describe_anchors(config, train)
    else:
        title, accuracy, metadata = f"{kind} classifier", top_k, {}
        loss = ClassificationLoss(label_smoothing=config.loss.label_smoothing)
        evaluator = partial(build_classification_evaluator, config, *of_run)
    return Parts(
        title=f"{title}, {len(names)} classes",
        model=model,
        loss=loss,
        accuracy=accuracy,
        batches=batches,
        train=train,
        evaluator=partial(evaluator, loss=loss, pictures=pictures),
        data_lines=lines,
        task_metadata=metadata,
        load_reports=reports,
    )


def _build_model(
    config: TaskConfig, names: Sequence[str], origin: Origin | None
) -> tuple[Detector | Classifier, Sequence[LoadReport]]:
    """With initial weights, or as an old run's, which are compared with it before it is built."""
    if origin is None:
        model = build_model(config, names)
        return model, load_initial_weights(model, config.model)
    tensors = origin.content["model"]
    check_weights(partial(build_model, config, names), origin.path, tensors)
    model, preprocessing = build_model(config, names), stored_preprocessing(tensors)
    assert preprocessing is not None
    model.normalise.adopt(preprocessing)  # which files, that are not read again, had decided
    return model, ()


def describe_data(config: TaskConfig, name: str, dataset: DetectionDataset) -> Iterator[str]:
    """Size of a data set, and what was corrected or passed over while it was read."""
    if not isinstance(config, Config):
        yield f"data.{name}: {len(dataset):,} images, {len(dataset.class_names):,} classes"
        yield from (f"  {text}" for text in dataset.findings.texts)
        return
    boxes = int(dataset.annotations.box_counts().sum())
    findings = dataset.findings
    counts = f"{len(dataset):,} images, {boxes:,} boxes"
    yield f"data.{name}: {'; '.join([counts, *findings.notes])}"
    yield from (f"  warning: {warning}" for warning in findings.warnings)
    yield from (f"  {count:,} boxes: {kind}" for kind, count in findings.counts.items())
    named = findings.texts[:20]
    yield from (f"    {text}" for text in named)
    more = sum(findings.counts.values()) - len(named)
    if more > 0:
        yield f"    and {more:,} more, which scripts/preflight.py lists"


def build_learner(
    config: TaskConfig,
    parts: Parts,
    ranks: Ranks,
    *,
    precision: Precision | None = None,
    schedule: Schedule | None = None,
    images_in_step: int | None = None,
) -> Learner:
    """The learner of a task's parts, which it moves to the device.

    Args:
        precision: that of a resumed run; None chooses it.
        schedule, images_in_step: instead of the config's.
    """
    training = config.training
    advice = "make training.micro_batch_size or data.image_size smaller"
    with explain_out_of_memory(ranks.device, advice):
        model = parts.model.to(ranks.device)
        parts.loss.to(ranks.device)  # its coder with it
        if precision is None:
            precision = _choose_precision(config, model, ranks)
        return Learner(
            model=model,
            loss=parts.loss,
            accuracy=parts.accuracy,
            freeze=build_freeze(config, model),
            optimizer=build_optimizer(config, model),
            schedule=schedule or build_schedule(config),
            precision=precision,
            ranks=ranks,
            images_in_step=images_in_step or training.batch_size,
            gradient_clip=training.gradient_clip,
            ema_decay=None if training.ema is None else training.ema.decay,
            ema_ramp=training.ema is not None and training.ema.ramp,
            seed=config.seed,
        )


def _choose_precision(config: TaskConfig, model: nn.Module, ranks: Ranks) -> Precision:
    """Rank 0 measures, all ranks obey."""
    measure = partial(
        choose_precision,
        config.training.precision,
        model=model,
        device=ranks.device,
        images=micro_batch_size(config, ranks),
        size_px=config.data.image_size,
    )
    chosen = ranks.broadcast(measure() if ranks.is_main else None)
    assert chosen is not None
    return chosen


def build_optimizer(config: TaskConfig, model: nn.Module) -> Optimizer:
    """The optimizer of all parameters, also of those that are frozen at first."""
    training = config.training
    settings = training.optimizer.model_dump(exclude={"type"})
    build = OPTIMIZERS[training.optimizer.type]
    return build(model, encoder_learning_rate=training.encoder_learning_rate, **settings)


def build_freeze(config: TaskConfig, model: nn.Module) -> Freeze | None:
    """What keeps its weights; a part that the model does not have is a UserError."""
    freeze = config.training.freeze
    with naming("training.freeze.until"):
        return None if freeze is None else Freeze(model, **freeze.model_dump())


def build_schedule(config: TaskConfig) -> Schedule:
    """Factors of the optimizer's learning rates; ``Plateau`` alone has a state."""
    schedule, training = config.training.schedule, config.training
    settings = schedule.model_dump(exclude={"type"})
    if isinstance(schedule, CosineRestartsConfig):
        settings["eta_min_ratio"] = settings.pop("eta_min") / training.optimizer.learning_rate
    elif isinstance(schedule, OneCycleConfig | LinearScheduleConfig):
        settings["steps"] = training.steps
    return SCHEDULES[schedule.type](**settings)
