"""The tasks ``detect`` and ``classify``: model, data, loss and evaluator from a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from yolo.config import ClassificationConfig, Config, TaskConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.data.loader import TrainingBatches
from yolo.detection.losses.loss import ClassificationLoss
from yolo.evaluate.metrics.metric import top_k
from yolo.factory.anchors import describe_anchors
from yolo.factory.data import build_training_batches
from yolo.factory.detector import (
    anchors_px,
    build_classifier,
    build_coder,
    build_detector,
    build_loss,
)
from yolo.factory.evaluator import accuracy_of, build_classification_evaluator, build_evaluator
from yolo.factory.weights import load_initial_weights
from yolo.models.detector import Classifier, Detector
from yolo.models.weights import LoadReport
from yolo.train.distributed import Ranks
from yolo.train.progress import Evaluator, Pictures

MOST_FINDINGS = 20
"""So many corrected boxes a run's introduction names."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that can be at fault in a config or its data, built before a run's folder is made.

    Attributes:
        title: the model in a few words, for the run's introduction.
        model: with its initial weights, its input normalised by ``model.normalise``.
        loss: ``loss(outputs, targets, images_in_step, images_seen) -> terms by name``.
        accuracy: ``accuracy(outputs, targets) -> (hits, of) by name``, counted while training.
        batches: this rank's stream.
        train: the training set, which defines what the labels mean.
        evaluator: builds it of ``precision``, once that is known and the loss on its device.
        data_lines: about the data sets, for the run's introduction.
        task_metadata: plain data of the task alone that every checkpoint carries.
        load_reports: of the files that the initial weights came from.
    """

    title: str
    model: Detector | Classifier
    loss: nn.Module
    accuracy: Callable[[Any, Any], dict[str, Tensor]] | None
    batches: TrainingBatches
    train: DetectionDataset
    evaluator: Callable[..., Evaluator]
    data_lines: Sequence[str] = ()
    task_metadata: dict[str, Any] = field(default_factory=dict)
    load_reports: Sequence[LoadReport] = ()

    @property
    def metadata(self) -> dict[str, Any]:
        """Plain data for every checkpoint: what labels, pixels and the task's numbers mean."""
        normalise = self.model.normalise
        return {
            "class_names": list(self.train.class_names),
            "category_ids": [int(i) for i in self.train.category_ids],
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
    pretrained: bool,
    pictures: Pictures | None = None,
) -> Parts:
    """Everything that training on a task needs.

    Args:
        config: the whole config.
        train, val: its data sets, opened.
        ranks: this process among all.
        pretrained: read the initial weights that the config names; a checkpoint that brings its
            own needs none.
        pictures: draws what an evaluation shows; None draws nothing.

    Raises:
        UserError: data or weights are at fault.
    """
    if isinstance(config, Config):
        parts, describe = _detection(config, train, ranks), _describe_boxes
    else:
        parts, describe = _classification(config, train, ranks), _describe_classes
    scored = val.share(config.evaluation.share, seed=config.seed)
    return replace(
        parts,
        evaluator=partial(parts.evaluator, scored, ranks, pictures=pictures),
        data_lines=[*describe("train", train), *describe("val", val), *parts.data_lines],
        load_reports=load_initial_weights(parts.model, config.model) if pretrained else (),
    )


def _detection(config: Config, train: DetectionDataset, ranks: Ranks) -> Parts:
    coder, model = build_coder(config), config.model
    loss = build_loss(config, coder, train.class_names)
    return Parts(
        title=f"{model.encoder.type} + {model.neck.type}, {len(train.class_names)} classes",
        model=build_detector(config, train.class_names),
        loss=loss,
        accuracy=accuracy_of(loss),
        batches=build_training_batches(config, train, ranks),
        train=train,
        evaluator=partial(build_evaluator, config, coder=coder, loss=loss),
        task_metadata={"anchors_px": anchors_px(config)},
        data_lines=list(describe_anchors(config, train)),
    )


def _classification(config: ClassificationConfig, train: DetectionDataset, ranks: Ranks) -> Parts:
    loss = ClassificationLoss(label_smoothing=config.loss.label_smoothing)
    return Parts(
        title=f"{config.model.encoder.type} classifier, {len(train.class_names)} classes",
        model=build_classifier(config, train.class_names),
        loss=loss,
        accuracy=top_k,
        batches=build_training_batches(config, train, ranks),
        train=train,
        evaluator=partial(build_classification_evaluator, config, loss=loss),
    )


def _describe_boxes(name: str, dataset: DetectionDataset) -> Iterator[str]:
    """Size of a data set, and what was corrected while it was read."""
    boxes = int(dataset.annotations.box_counts().sum())
    yield f"data.{name}: {len(dataset):,} images, {boxes:,} boxes"
    findings = dataset.findings
    for kind, count in findings.counts.items():
        yield f"  {count:,} boxes: {kind}"
    named = findings.texts[:MOST_FINDINGS]
    for text in named:
        yield f"    {text}"
    more = sum(findings.counts.values()) - len(named)
    if more > 0:
        yield f"    and {more:,} more, which scripts/preflight.py lists"


def _describe_classes(name: str, dataset: DetectionDataset) -> Iterator[str]:
    """Size of a data set, and what was passed over while it was listed."""
    yield f"data.{name}: {len(dataset):,} images, {len(dataset.class_names):,} classes"
    yield from (f"  {text}" for text in dataset.findings.texts)
