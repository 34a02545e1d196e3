"""The task ``detect``: a detector, its data, its loss and its evaluator from a config."""

from __future__ import annotations

from collections.abc import Iterator

from yolo.config import Config
from yolo.data.formats.detection import DetectionDataset
from yolo.factory.anchors import describe_anchors
from yolo.factory.data import build_training_batches
from yolo.factory.detector import (
    anchors_px,
    build_coder,
    build_detector,
    build_loss,
)
from yolo.factory.evaluator import accuracy_of, build_evaluator
from yolo.factory.initial_weights import load_initial_weights
from yolo.factory.parts import Parts
from yolo.train.distributed import Ranks
from yolo.train.evaluation import Evaluator, Pictures
from yolo.train.precision import Precision

MOST_FINDINGS = 20
"""So many mended boxes a run's introduction names."""


def build_detection(
    config: Config,
    train: DetectionDataset,
    val: DetectionDataset,
    ranks: Ranks,
    *,
    pretrained: bool,
    pictures: Pictures | None = None,
) -> Parts:
    """Everything that training a detector needs.

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
    detector = build_detector(config, train.class_names)
    reports = load_initial_weights(detector, config.model) if pretrained else []
    coder = build_coder(config)
    loss = build_loss(config, coder, train.class_names)

    scored = val.share(config.evaluation.share, seed=config.seed)

    def evaluator(precision: Precision) -> Evaluator:
        return build_evaluator(
            config, scored, ranks, coder=coder, precision=precision, loss=loss, pictures=pictures
        )

    model = config.model
    return Parts(
        title=f"{model.encoder.type} + {model.neck.type}, {len(train.class_names)} classes",
        model=detector,
        loss=loss,
        accuracy=accuracy_of(loss),
        batches=build_training_batches(config, train, ranks),
        train=train,
        evaluator=evaluator,
        metadata={"anchors_px": anchors_px(config)},
        data_lines=[
            *_describe("train", train),
            *_describe("val", val),
            *describe_anchors(config, train),
        ],
        load_reports=reports,
    )


def _describe(name: str, dataset: DetectionDataset) -> Iterator[str]:
    """Size of a data set, and what was mended while it was read."""
    boxes = int(dataset.annotations.box_counts().sum())
    yield f"data.{name}: {len(dataset):,} images, {boxes:,} boxes"
    findings = dataset.findings
    for kind, count in findings.counts.items():
        yield f"  {count:,} boxes: {kind}"
    told = findings.texts[:MOST_FINDINGS]
    for text in told:
        yield f"    {text}"
    untold = sum(findings.counts.values()) - len(told)
    if untold > 0:
        yield f"    and {untold:,} more, which scripts/preflight.py lists"
