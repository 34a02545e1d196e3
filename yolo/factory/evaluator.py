"""The evaluators of both tasks, while a model trains and afterwards, from a config."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from yolo.config import ClassificationConfig, Config
from yolo.config.schema.training import EvaluationConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.losses.loss import ClassificationLoss
from yolo.evaluate.evaluators import ClassificationEvaluator, DetectionEvaluator
from yolo.evaluate.metrics.coco import CocoMetric
from yolo.evaluate.metrics.metric import Metric, grid_accuracy, top_k
from yolo.evaluate.metrics.voc import VocMetric
from yolo.evaluate.network_run import NetworkRun
from yolo.factory.data import build_evaluation_batches
from yolo.factory.detector import DetectionLoss, build_postprocess
from yolo.train.distributed import Ranks
from yolo.train.precision import Precision
from yolo.train.progress import Accuracy, Pictures

DEFAULT_MONITORS = {"coco": "AP50", "voc": "mAP"}


def build_evaluator(
    config: Config,
    dataset: DetectionDataset,
    ranks: Ranks,
    *,
    coder: nn.Module,
    precision: Precision,
    loss: DetectionLoss | None = None,
    pictures: Pictures | None = None,
    image_size_px: int | None = None,
) -> DetectionEvaluator:
    """Score on all of a data set with the config's settings; only rank 0 holds the ground truth.

    Args:
        coder: on its device; its output has boxes and scores.
        loss: for its terms on this data; None computes none.
        pictures: draws what an evaluation shows; None draws nothing.
        image_size_px: instead of the config's.
    """
    evaluation = config.evaluation
    return DetectionEvaluator(
        network=NetworkRun(
            batches=build_evaluation_batches(config, dataset, ranks, image_size_px=image_size_px),
            images=len(dataset),
            precision=precision,
            ranks=ranks,
            loss=loss,
            accuracy=None if loss is None else accuracy_of(loss),
        ),
        metrics=build_metrics(evaluation, dataset) if ranks.is_main else (),
        class_names=dataset.class_names,
        monitor=evaluation.monitor or DEFAULT_MONITORS[evaluation.metric],
        coder=coder,
        postprocess=build_postprocess(config),
        pictures=pictures,
        picture_count=evaluation.pictures,
        per_class=evaluation.per_class,
    )


def build_classification_evaluator(
    config: ClassificationConfig,
    dataset: DetectionDataset,
    ranks: Ranks,
    *,
    loss: ClassificationLoss,
    precision: Precision,
    pictures: Pictures | None = None,
) -> ClassificationEvaluator:
    return ClassificationEvaluator(
        network=NetworkRun(
            batches=build_evaluation_batches(config, dataset, ranks),
            images=len(dataset),
            precision=precision,
            ranks=ranks,
            loss=loss,
            accuracy=top_k,
        ),
        class_names=dataset.class_names,
        monitor=config.evaluation.monitor,
        pictures=pictures,
        picture_count=config.evaluation.pictures,
    )


def accuracy_of(loss: DetectionLoss) -> Accuracy:
    """What the grid's accuracy is counted from, while training and in an evaluation."""
    return lambda raw, targets: grid_accuracy(loss.matches(raw, targets))


def build_metrics(evaluation: EvaluationConfig, dataset: DetectionDataset) -> list[Metric]:
    """The metric to be judged by, and behind it the other one where both are asked for."""
    build: dict[str, Callable[[], Metric]] = {
        "coco": lambda: CocoMetric(ground_truth=dataset.ground_truth(), backend=evaluation.backend),
        "voc": lambda: VocMetric.of_dataset(
            dataset, iou=evaluation.voc_iou, fixed_conf=evaluation.fixed_conf
        ),
    }
    others = [name for name in build if name != evaluation.metric and evaluation.both]
    return [build[name]() for name in (evaluation.metric, *others)]
