"""The evaluator of a detector, while it trains and afterwards."""

from __future__ import annotations

from yolo.build.data import build_evaluation_batches
from yolo.build.detector import build_postprocess
from yolo.coders.anchor import AnchorCoder
from yolo.config import Config
from yolo.data.datasets.coco import CocoDataset
from yolo.engine.detection_evaluator import DetectionEvaluator
from yolo.engine.distributed import Ranks
from yolo.engine.precision import Precision
from yolo.losses.yolov3 import YOLOv3Loss
from yolo.metrics.coco import CocoMetric


def build_evaluator(
    config: Config,
    dataset: CocoDataset,
    ranks: Ranks,
    *,
    coder: AnchorCoder,
    precision: Precision,
    loss: YOLOv3Loss | None = None,
    pictures: int = 0,
    per_class: bool = False,
    image_size_px: int | None = None,
    conf: float | None = None,
) -> DetectionEvaluator:
    """Score on a data set with the config's settings; only rank 0 holds the ground truth.

    Args:
        config: the whole config.
        dataset: all that is scored.
        ranks: this process among all.
        coder: on its device.
        precision: of the network.
        loss: for its terms on this data; None computes none.
        pictures: how many images to draw.
        per_class: list each class, also where the config does not ask for it.
        image_size_px, conf: instead of the config's.
    """
    evaluation = config.evaluation
    metric = None
    if ranks.is_main:
        metric = CocoMetric(ground_truth=dataset.ground_truth(), backend=evaluation.backend)
    changes = {} if conf is None else {"conf": conf}
    batches = build_evaluation_batches(config, dataset, ranks, image_size_px=image_size_px)
    return DetectionEvaluator(
        batches=batches,
        images=batches.number_of_images,
        metric=metric,
        category_ids=dataset.category_ids,
        class_names=dataset.class_names,
        monitor=evaluation.monitor,
        coder=coder,
        postprocess=build_postprocess(config, **changes),
        loss=loss,
        precision=precision,
        ranks=ranks,
        pictures=pictures,
        per_class=per_class or evaluation.per_class,
    )
