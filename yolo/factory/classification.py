"""A classifier, its loss and its evaluator from a config."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from yolo.config import ClassificationConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.losses.classification import ClassificationLoss
from yolo.evaluate.evaluators import ClassificationEvaluator
from yolo.evaluate.metrics.metric import top_k
from yolo.factory.detector import build_encoder, preprocessing_of
from yolo.factory.evaluator import build_network_run
from yolo.models.detector import Classifier
from yolo.train.distributed import Ranks
from yolo.train.precision import Precision
from yolo.train.progress import Pictures


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
        network=build_network_run(config, dataset, ranks, precision, loss, top_k),
        class_names=dataset.class_names,
        monitor=config.evaluation.monitor,
        pictures=pictures,
        picture_count=config.evaluation.pictures,
    )
