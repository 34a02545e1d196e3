"""The task ``classify``: a classifier, its data, its loss and its evaluator from a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo.config import ClassificationConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.losses.classification import ClassificationLoss
from yolo.evaluate.classification_evaluator import ClassificationEvaluator
from yolo.evaluate.metrics.accuracy import top_k
from yolo.factory.data import (
    Split,
    build_dataset,
    build_evaluation_batches,
    build_training_batches,
    check_same_classes,
)
from yolo.factory.detector import build_encoder, preprocessing_of
from yolo.factory.initial_weights import load_initial_weights
from yolo.factory.parts import Parts
from yolo.factory.trained_weights import load_trained
from yolo.models.detector import Classifier
from yolo.records import Targets
from yolo.train.distributed import Ranks
from yolo.train.evaluation import Pictures
from yolo.train.out_of_memory import explain_out_of_memory
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
        return _build_evaluator(config, scored, ranks, loss, precision, pictures=pictures)

    def accuracy(logits: Tensor, targets: Targets) -> dict[str, Tensor]:
        return top_k(logits, targets.labels)

    return Parts(
        title=f"{config.model.encoder.type} classifier, {len(train.class_names)} classes",
        model=classifier,
        loss=loss,
        accuracy=accuracy,
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


def _build_evaluator(
    config: ClassificationConfig,
    dataset: DetectionDataset,
    ranks: Ranks,
    loss: ClassificationLoss,
    precision: Precision,
    *,
    pictures: Pictures | None = None,
) -> ClassificationEvaluator:
    return ClassificationEvaluator(
        batches=build_evaluation_batches(config, dataset, ranks),
        images=len(dataset),
        class_names=dataset.class_names,
        monitor=config.evaluation.monitor,
        loss=loss,
        precision=precision,
        ranks=ranks,
        pictures=pictures,
        picture_count=config.evaluation.pictures,
    )


def _describe(name: str, dataset: DetectionDataset) -> Iterator[str]:
    """Size of a data set, and what was passed over while it was listed."""
    yield f"data.{name}: {len(dataset):,} images, {len(dataset.class_names):,} classes"
    yield from (f"  {text}" for text in dataset.findings.texts)


def score_classifier(
    path: Path,
    checkpoint: Mapping[str, Any],
    config: ClassificationConfig,
    ranks: Ranks,
    *,
    split: Split,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Run a trained classifier once over a data set of its own config.

    On ``val`` these are the very figures that training logged.

    Args:
        path: of the checkpoint, for errors.
        checkpoint: its content.
        config: the checkpoint's.
        ranks: where to compute.
        split: ``train``, ``val`` or ``test`` of the checkpoint's config.
        say: prints lines.

    Returns:
        ``{"checkpoint", "step", "split", "results": [{"stats": {"top1", "top5", "loss", ...}}],
        "images_per_second"}``.

    Raises:
        UserError: the data cannot be read, or the checkpoint's weights do not fit.
    """
    dataset = build_dataset(config, split)
    ids, names = checkpoint["category_ids"], checkpoint["class_names"]
    check_same_classes(dataset, split, ids, names, owner=str(path))
    if split == "val":
        dataset = dataset.share(config.evaluation.share, seed=config.seed)
    loss, precision = build_classification_loss(config), Precision(**checkpoint["precision"])
    evaluator = _build_evaluator(config, dataset, ranks, loss, precision)
    step = checkpoint["progress"]["step"]
    log(f"{path} (step {step}): {len(dataset):,} images of data.{split}, {ranks.device}")
    classifier = load_trained(build_classifier(config, names), path, checkpoint).to(ranks.device)
    with explain_out_of_memory(ranks.device, "choose --gpu cpu"):
        evaluation = evaluator.evaluate(classifier, lambda: False)
    assert evaluation is not None
    log(evaluation.text)
    return {
        "checkpoint": str(path),
        "step": step,
        "split": split,
        "results": [{"stats": evaluation.figures}],
        "images_per_second": {"network": evaluation.images_per_second},
    }
