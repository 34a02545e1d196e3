"""Scoring checkpoints: the model, its data and its settings come from the file alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from yolo.apps.report.curves import ModelCurves, write_curves
from yolo.config import Config
from yolo.config.validation_line import ScoreArguments
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.evaluate.detection_evaluator import DetectionEvaluator, Found
from yolo.evaluate.detection_files import TextFiles, VocFiles, write_coco_results
from yolo.evaluate.exported_runner import is_exported
from yolo.factory.classification import score_classifier
from yolo.factory.data import Split, build_dataset, check_same_classes, image_set
from yolo.factory.detector import DetectionLoss, build_coder, build_loss
from yolo.factory.evaluator import build_evaluator, build_voc_metric
from yolo.factory.exported_scoring import Decoded, ExportedDetector, exported_model, read_exported
from yolo.factory.trained_weights import load_detector, read_config
from yolo.train.checkpoint import load_checkpoint
from yolo.train.distributed import Ranks, join
from yolo.train.out_of_memory import explain_out_of_memory
from yolo.train.precision import Precision
from yolo.train.run_folder import newest_checkpoint

Log = Callable[[str], None]
"""Prints lines."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A trained detector and its evaluator.

    Attributes:
        path: the checkpoint, or the exported file.
        detector: on its device, in evaluation mode.
        evaluator: over the dataset, with the loss; of an exported file without.
        config: as it is scored.
        step: of the checkpoint.
        split: what the dataset is in the config.
        dataset: all that is scored.
    """

    path: Path
    detector: nn.Module
    evaluator: DetectionEvaluator
    config: Config
    step: int
    split: Split
    dataset: DetectionDataset


Analyse = Callable[[Scoring, Found], object]


def score_checkpoints(
    arguments: ScoreArguments, log: Log, analyse: Analyse | None = None
) -> dict[str, Any]:
    """Score one checkpoint, or several one after the other, and write what was asked for.

    Args:
        arguments: the command line.
        say: prints lines.
        analyse: gets each detector with what it found; None for no analysis.

    Returns:
        ``{"results": [{"confidence", "found_boxes", "stats"}, ...], "losses", "accuracy", ...}``;
        of several checkpoints ``{"checkpoints": [the same of each]}``.

    Raises:
        UserError: a checkpoint or the data cannot be read, do not belong together, or do not allow
            what was asked for.
    """
    paths = arguments.checkpoints or (newest_checkpoint(arguments.logs),)
    ranks = join(None if arguments.devices == "auto" else arguments.devices)
    reports: list[dict[str, Any]] = []
    curves: list[ModelCurves] = []
    for path in paths:
        if reports:
            log("")
        reports.append(_score(path, ranks, arguments, curves, log, analyse))
    if arguments.curves is not None:
        write_curves(curves, arguments.curves, log)
    return reports[0] if len(reports) == 1 else {"checkpoints": reports}


def _score(
    path: Path,
    ranks: Ranks,
    arguments: ScoreArguments,
    curves: list[ModelCurves],
    log: Log,
    analyse: Analyse | None,
) -> dict[str, Any]:
    """Score a checkpoint of any task; a detector's curves are added to ``curves``."""
    checkpoint = read_exported(path, arguments) if is_exported(path) else load_checkpoint(path)
    if arguments.precision is not None:
        checkpoint["precision"] = {"name": arguments.precision, "reason": "as asked for"}
    config = read_config(path, checkpoint)
    if isinstance(config, Config):
        return _score_detector(path, checkpoint, config, ranks, arguments, curves, log, analyse)
    options = arguments.detector_options()
    if options:
        raise UserError(
            f"{path}: a classifier has no boxes; leave out {', '.join(options)}, "
            "or name the checkpoint of a detector"
        )
    return score_classifier(path, checkpoint, config, ranks, split=arguments.split, log=log)


def _score_detector(
    path: Path,
    checkpoint: Mapping[str, Any],
    config: Config,
    ranks: Ranks,
    arguments: ScoreArguments,
    curves: list[ModelCurves],
    log: Log,
    analyse: Analyse | None,
) -> dict[str, Any]:
    """Run the network once and score it at each confidence."""
    confs = arguments.confs or (config.evaluation.conf,)
    scoring = build_scoring(
        path,
        checkpoint,
        _as_asked(path, config, arguments),
        ranks,
        split=arguments.split,
        image_size_px=arguments.image_size_px,
    )
    dataset = scoring.dataset
    writers = _writers(arguments, config, dataset)
    log(
        f"{path} (step {scoring.step}): {len(dataset):,} images of data.{arguments.split}, "
        f"{ranks.device}"
    )
    with explain_out_of_memory(ranks.device, "choose a smaller --image-size, or --gpu cpu"):
        found = scoring.evaluator.find(scoring.detector, lambda: False)
    assert found is not None
    results = [_score_at(conf, scoring, found, log) for conf in confs]
    log("")
    speed = _tell_the_rest(found, log)
    for write in writers:
        write(found)
    if arguments.curves is not None:
        curves.append(_curves(scoring, found))
    if analyse is not None:
        analyse(scoring, found)
    return {
        "checkpoint": str(path),
        "step": scoring.step,
        "split": arguments.split,
        "results": results,
        "losses": {"loss": sum(found.run.losses.values()), **found.run.losses}
        if found.run.losses
        else {},
        "accuracy": found.accuracy,
        "images_per_second": speed,
    }


def _as_asked(path: Path, config: Config, arguments: ScoreArguments) -> Config:
    """The config with the settings that the command line replaces."""
    size = arguments.image_size_px
    trained = config.data.image_size
    if size is not None and size != trained and config.model.head.type == "yolov1":
        raise UserError(
            f"{path}: the end of a YOLOv1 works at the {trained} px alone that it was trained at, "
            f"not at --image-size {size}"
        )
    changes: dict[str, Any] = {}
    if arguments.confs is not None:
        changes["conf"] = min(arguments.confs)
    if arguments.metric is not None:
        main = config.evaluation.metric if arguments.metric == "both" else arguments.metric
        changes |= {"metric": main, "both": arguments.metric == "both", "monitor": None}
    if arguments.voc_iou is not None:
        changes["voc_iou"] = arguments.voc_iou
    if arguments.per_class:
        changes["per_class"] = True
    evaluation = config.evaluation.model_copy(update=changes)
    scores_voc = evaluation.both or evaluation.metric == "voc" or arguments.curves is not None
    if arguments.voc_iou is not None and not scores_voc:
        raise UserError(
            f"{path}: --voc-iou changes nothing in COCO's figures; add --metric voc or --curves"
        )
    return config.model_copy(update={"evaluation": evaluation})


def _writers(
    arguments: ScoreArguments, config: Config, dataset: DetectionDataset
) -> list[Callable[[Found], None]]:
    """What writes the boxes; whatever forbids it is told here, before the network runs."""
    writers: list[Callable[[Found], None]] = []
    if arguments.detections is not None:
        path = arguments.detections
        writers.append(lambda found: write_coco_results(path, found, dataset))
    if arguments.save_txt is not None:
        writers.append(TextFiles(arguments.save_txt, dataset).write)
    if arguments.save_voc is not None:
        start = f"{arguments.competition}_det_{image_set(config, arguments.split)}_"
        writers.append(VocFiles(arguments.save_voc, dataset, start).write)
    return writers


def _score_at(conf: float, scoring: Scoring, found: Found, log: Log) -> dict[str, Any]:
    """Score what was found at one confidence, print it and return it."""
    kept = found.above(conf)
    result = scoring.evaluator.score(kept)
    log(f"\nconfidence {conf:g}: {len(kept.scores):,} boxes")
    log(result.table)
    return {"confidence": conf, "found_boxes": len(kept.scores), "stats": result.stats}


def _tell_the_rest(found: Found, log: Log) -> dict[str, float]:
    """Print losses, accuracies and speed; the latter is returned."""
    run = found.run
    terms = ", ".join(f"{name} {value:.4g}" for name, value in run.losses.items())
    shares = ", ".join(f"{name} {value:.4f}" for name, value in found.accuracy.items())
    if run.losses:
        log(f"loss {sum(run.losses.values()):.4g} ({terms}); accuracy: {shares}")
    speed = {
        "network": run.images / run.network_seconds,
        "network_and_postprocessing": run.images / run.total_seconds,
    }
    log(
        f"{speed['network']:.1f} images/s network, "
        f"{speed['network_and_postprocessing']:.1f} images/s network and post-processing"
    )
    return speed


def _curves(scoring: Scoring, found: Found) -> ModelCurves:
    """Of all that was found."""
    dataset, evaluation = scoring.dataset, scoring.config.evaluation
    categories = np.asarray(dataset.category_ids)[found.labels]
    curves = build_voc_metric(evaluation, dataset).curves(
        found.image_ids, categories, found.boxes_xyxy_px, found.scores
    )
    names = zip(dataset.class_names, dataset.category_ids, strict=True)
    return ModelCurves(
        checkpoint=scoring.path,
        step=scoring.step,
        split=scoring.split,
        iou=evaluation.voc_iou,
        curves={name: curves[category] for name, category in names},
    )


def build_scoring(
    path: Path,
    checkpoint: Mapping[str, Any],
    config: Config,
    ranks: Ranks,
    *,
    split: Split = "val",
    image_size_px: int | None = None,
) -> Scoring:
    """Prepare the scoring of a detector.

    Args:
        path: of the checkpoint, for errors.
        checkpoint: its content.
        config: the checkpoint's, or one with other settings of the evaluation.
        ranks: where to compute.
        split: ``train``, ``val`` or ``test`` of the config.
        image_size_px: another input size; None for the training's.

    Raises:
        UserError: the data cannot be read, or does not belong to the checkpoint.
    """
    dataset = build_dataset(config, split)
    ids, names = checkpoint["category_ids"], checkpoint["class_names"]
    check_same_classes(dataset, split, ids, names, owner=str(path))
    if split == "val":
        dataset = dataset.share(config.evaluation.share, seed=config.seed)
    detector, coder, loss = _network(path, checkpoint, config, ranks)
    evaluator = build_evaluator(
        config,
        dataset,
        ranks,
        coder=coder,
        precision=Precision(**checkpoint["precision"]),
        loss=loss,
        image_size_px=image_size_px,
    )
    return Scoring(
        path=path,
        detector=detector,
        evaluator=evaluator,
        config=config,
        step=checkpoint["progress"]["step"],
        split=split,
        dataset=dataset,
    )


def _network(
    path: Path, checkpoint: Mapping[str, Any], config: Config, ranks: Ranks
) -> tuple[nn.Module, nn.Module, DetectionLoss | None]:
    """Detector, coder and loss on their device; an exported file decodes and knows no loss."""
    exported = exported_model(checkpoint)
    if exported is not None:
        return ExportedDetector(exported, ranks.device), Decoded(), None
    coder = build_coder(config)
    loss = build_loss(config, coder, checkpoint["class_names"]).to(ranks.device)  # its coder too
    return load_detector(path, checkpoint, config).to(ranks.device), coder, loss
