"""The task ``classify``: a classifier, its data, its loss and its evaluator from a config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from yolo.config import ClassificationConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.losses.classification import ClassificationLoss
from yolo.evaluate.classification_evaluator import ClassificationEvaluator
from yolo.evaluate.metrics.accuracy import label_accuracy
from yolo.factory.data import build_training_batches
from yolo.factory.detector import build_encoder, preprocessing_of
from yolo.factory.evaluator import build_network_run
from yolo.factory.initial_weights import load_initial_weights
from yolo.factory.parts import Parts
from yolo.models.detector import Classifier
from yolo.train.distributed import Ranks
from yolo.train.evaluation import Pictures
from yolo.train.precision import Precision


def build_classification(
    config: ClassificationConfig,
    train: DetectionDataset,
    val: DetectionDataset,
    ranks: Ranks,
    *,
    pretrained: bool,
    pictures: Pictures | None = None,
) -> Parts:
    """Everything that training a classifier needs.

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
    classifier = build_classifier(config, train.class_names)
    reports = load_initial_weights(classifier, config.model) if pretrained else []
    loss = build_classification_loss(config)

    scored = val.share(config.evaluation.share, seed=config.seed)

    def evaluator(precision: Precision) -> ClassificationEvaluator:
        return build_classification_evaluator(
            config, scored, ranks, loss=loss, precision=precision, pictures=pictures
        )

    return Parts(
        title=f"{config.model.encoder.type} classifier, {len(train.class_names)} classes",
        model=classifier,
        loss=loss,
        accuracy=label_accuracy,
        batches=build_training_batches(config, train, ranks),
        train=train,
        evaluator=evaluator,
        data_lines=[*_describe("train", train), *_describe("val", val)],
        load_reports=reports,
    )


def build_classifier(config: ClassificationConfig, class_names: Sequence[str]) -> Classifier:
    """The classifier with random weights, decided by the config's seed; no data is needed.

    Args:
        config: the whole config.
        class_names: of the data set; their number sizes the last layer.
    """
    torch.manual_seed(config.seed)
    return Classifier(
        encoder=build_encoder(config.model.encoder),
        classes=len(class_names),
        dropout=config.model.dropout,
        preprocessing=preprocessing_of(config.model),
    )


def build_classification_loss(config: ClassificationConfig) -> ClassificationLoss:
    """The loss as configured."""
    return ClassificationLoss(label_smoothing=config.loss.label_smoothing)


def build_classification_evaluator(
    config: ClassificationConfig,
    dataset: DetectionDataset,
    ranks: Ranks,
    *,
    loss: ClassificationLoss,
    precision: Precision,
    pictures: Pictures | None = None,
) -> ClassificationEvaluator:
    """Score on a data set with the config's settings."""
    return ClassificationEvaluator(
        network=build_network_run(config, dataset, ranks, precision, loss, label_accuracy),
        class_names=dataset.class_names,
        monitor=config.evaluation.monitor,
        pictures=pictures,
        picture_count=config.evaluation.pictures,
    )


def _describe(name: str, dataset: DetectionDataset) -> Iterator[str]:
    """Size of a data set, and what was passed over while it was listed."""
    yield f"data.{name}: {len(dataset):,} images, {len(dataset.class_names):,} classes"
    yield from (f"  {text}" for text in dataset.findings.texts)
