"""Scoring checkpoints: the model, its data and its settings come from the file alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from yolo.config import ClassificationConfig, Config, ConfigError, TaskConfig, load_config
from yolo.config.load import with_overrides
from yolo.config.score_arguments import ScoreArguments
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.losses.loss import ClassificationLoss
from yolo.detection.tta import AugmentedDetector
from yolo.errors import UserError, one_line
from yolo.evaluate.detection_files import (
    Write,
    prepare_text_files,
    prepare_voc_files,
    write_coco_results,
)
from yolo.evaluate.evaluators import PICTURE_CONF, Found
from yolo.evaluate.exported import FIXED, ExportedModel, is_exported
from yolo.evaluate.scoring import ClassifierScorer, DetectorScorer, Log, ModelCurves, ScoredModel
from yolo.factory.data import Split, build_dataset, image_set, match_classes
from yolo.factory.detector import DetectionLoss, build_coder, build_loss, check_yolov1_size
from yolo.factory.evaluator import build_classification_evaluator, build_evaluator
from yolo.factory.initial_weights import load_detector, load_trained, read_config
from yolo.factory.learner import describe_data
from yolo.factory.resume import changed_parts, describe_places
from yolo.train.checkpoint import load_checkpoint, save_checkpoint
from yolo.train.distributed import Ranks, one_process
from yolo.train.precision import Precision
from yolo.train.run_folder import find_checkpoint

Analyse = Callable[[DetectorScorer, Found], object]


def score_checkpoints(
    arguments: ScoreArguments,
    log: Log,
    *,
    analyse: Analyse | None = None,
    draw_curves: Callable[[Sequence[ModelCurves]], object] | None = None,
) -> dict[str, Any]:
    """Score one checkpoint, or several one after the other, and write what was asked for.

    Args:
        analyse: gets each detector with what it found.
        draw_curves: gets the curves of all detectors.

    Returns:
        The report of ``DetectorScorer`` or ``ClassifierScorer``; of several checkpoints
        ``{"checkpoints": [the same of each]}``.
    """
    paths = [find_checkpoint(path, arguments.logs) for path in arguments.checkpoints or (None,)]
    ranks = one_process(arguments.devices)
    reports: list[dict[str, Any]] = []
    curves: list[ModelCurves] = []
    for path in paths:
        if reports:
            log("")
        reports.append(_score(path, ranks, arguments, log, analyse, curves))
    if draw_curves is not None:
        draw_curves(curves)
    return reports[0] if len(reports) == 1 else {"checkpoints": reports}


def _score(
    path: Path,
    ranks: Ranks,
    arguments: ScoreArguments,
    log: Log,
    analyse: Analyse | None,
    curves: list[ModelCurves],
) -> dict[str, Any]:
    """Score a checkpoint of any task; a detector's curves are added to ``curves``."""
    checkpoint = _read_exported(path, arguments) if is_exported(path) else load_checkpoint(path)
    if arguments.precision is not None:
        checkpoint["precision"] = {"name": arguments.precision, "reason": "as asked for"}
    config, split = read_config(path, checkpoint, arguments.overrides), arguments.split
    if isinstance(config, Config):
        config = _as_asked(path, config, arguments)
    elif options := arguments.detector_options():
        raise UserError(
            f"{path}: a classifier has no boxes; leave out {', '.join(options)}, "
            "or name the checkpoint of a detector"
        )
    given = split, arguments.image_size_px, arguments.tta
    scorer = build_scorer(path, checkpoint, config, ranks, *given)
    if isinstance(scorer, ClassifierScorer):
        _log_data(checkpoint, config, scorer, log)
        return scorer.score(log)
    assert isinstance(config, Config)
    outputs = _writers(arguments, config, scorer.dataset)
    _log_data(checkpoint, config, scorer, log)
    if arguments.curves is not None:
        outputs.append(lambda found: curves.append(ModelCurves.of_found(scorer, found)))
    if analyse is not None:
        outputs.append(partial(analyse, scorer))
    if arguments.choose_conf:
        outputs.append(partial(_choose_conf, scorer, log))
    return scorer.score(arguments.confs or (config.evaluation.conf,), log, outputs)


def _choose_conf(scorer: DetectorScorer, log: Log, found: Found) -> None:
    """Put the confidence of each class's best F1 into the checkpoint.

    It is rounded down to 4 digits, so that no box is lost to the last bits of its score.
    """
    confs = []
    log(f"\nconfidence of the best F1 at IoU {scorer.voc_iou:g}, now in {scorer.path}:")
    for name, curve in ModelCurves.of_found(scorer, found).curves.items():
        conf, precision, recall, f1 = curve.best_f1()
        confs.append(math.floor(conf * 1e4) / 1e4 if f1 else PICTURE_CONF)
        figures = f"F1 = {f1:.3f}  precision = {precision:.3f}  recall = {recall:.3f}"
        log(f" {one_line(name):<20} {confs[-1]:.4f}  {figures}")
    save_checkpoint(scorer.path, {**load_checkpoint(scorer.path), "class_conf": confs})


def _log_data(
    checkpoint: Mapping[str, Any], config: TaskConfig, scorer: ScoredModel, log: Log
) -> None:
    """Which data stand elsewhere than in training, whether they are others, and what they hold."""
    moved = list(describe_places(checkpoint["config"], config))
    for line in moved:
        log(line)
    split, before = scorer.split, checkpoint.get("data", {}).get(scorer.split)
    if moved and before and (split != "val" or config.evaluation.share == 1):
        others = changed_parts(before, scorer.dataset.fingerprint())
        log(f"data.{split}: {', '.join(others) or 'the same as in training'}")
    for line in describe_data(config, split, scorer.dataset):
        log(line)


def _as_asked(path: Path, config: Config, arguments: ScoreArguments) -> Config:
    """The config with the settings that the command line replaces."""
    size, trained = arguments.image_size_px, config.data.image_size
    check_yolov1_size(path, config, size or trained, f", not at --image-size {size}")
    asked = {
        "conf": None if arguments.confs is None else min(arguments.confs),
        "voc_iou": arguments.voc_iou,
        "nms": arguments.nms,
        "labels": arguments.labels or ("best_class" if arguments.choose_conf else None),
        "per_class": arguments.per_class or None,
    }
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if arguments.metric is not None:
        both = arguments.metric == "both"
        main = config.evaluation.metric if both else arguments.metric
        changes |= {"metric": main, "both": both, "monitor": None}
    evaluation = config.evaluation.model_copy(update=changes)
    scores_voc = evaluation.both or evaluation.metric == "voc" or arguments.curves is not None
    if arguments.voc_iou is not None and not scores_voc:
        raise UserError(
            f"{path}: --voc-iou changes nothing in COCO's figures; add --metric voc or --curves"
        )
    return config.model_copy(update={"evaluation": evaluation})


def _writers(arguments: ScoreArguments, config: Config, dataset: DetectionDataset) -> list[Write]:
    """What writes the boxes; whatever forbids it is an error here, before the network runs."""
    writers: list[Write] = []
    if arguments.detections is not None:
        writers.append(partial(write_coco_results, arguments.detections, dataset))
    if arguments.save_txt is not None:
        writers.append(prepare_text_files(arguments.save_txt, dataset))
    if arguments.save_voc is not None:
        start = f"{arguments.competition}_det_{image_set(config, arguments.split)}_"
        writers.append(prepare_voc_files(arguments.save_voc, dataset, start))
    return writers


def build_scorer(
    path: Path,
    checkpoint: Mapping[str, Any],
    config: TaskConfig,
    ranks: Ranks,
    split: Split = "val",
    image_size_px: int | None = None,
    tta: bool = False,
) -> DetectorScorer | ClassifierScorer:
    """Prepare the scoring of a model on a data set; of val the share that training scored.

    Args:
        path: of the checkpoint, for errors.
        checkpoint: its content, or what ``_read_exported`` gives.
        config: the checkpoint's, or one with other settings of the evaluation.
        image_size_px: another input size; None for the training's.
        tta: a detector finds with test-time augmentation, and there are no losses.
    """
    ids, names = checkpoint["category_ids"], checkpoint["class_names"]
    dataset = match_classes(build_dataset(config, split), split, ids, names, owner=str(path))
    if split == "val":
        dataset = dataset.share(config.evaluation.share, seed=config.seed)
    precision, step = Precision(**checkpoint["precision"]), checkpoint["progress"]["step"]
    of_any: dict[str, Any] = {"path": path, "step": step, "split": split, "dataset": dataset}
    if isinstance(config, ClassificationConfig):
        classifier = load_trained(path, checkpoint, config).to(ranks.device)
        evaluator = build_classification_evaluator(
            config,
            dataset,
            ranks,
            loss=ClassificationLoss(label_smoothing=config.loss.label_smoothing),
            precision=precision,
        )
        return ClassifierScorer(**of_any, model=classifier, evaluator=evaluator)
    coder: nn.Module = nn.Identity()
    loss: DetectionLoss | None = None
    if "exported" in checkpoint:  # it decodes and knows no loss
        model: nn.Module = checkpoint["exported"]
    else:
        coder = built = build_coder(config)
        loss = build_loss(config, built, names).to(ranks.device)  # coder too
        model = load_detector(path, checkpoint, config).to(ranks.device)
        if tta:
            model, coder, loss = AugmentedDetector(model, built), nn.Identity(), None
    return DetectorScorer(
        **of_any,
        model=model,
        evaluator=build_evaluator(
            config,
            dataset,
            ranks,
            coder=coder,
            precision=precision,
            loss=loss,
            image_size_px=image_size_px,
        ),
        voc_iou=config.evaluation.voc_iou,
        image_size_px=config.data.image_size,
    )


def _read_exported(path: Path, arguments: ScoreArguments) -> dict[str, Any]:
    """What scoring reads of a checkpoint; the size and the thresholds are the file's own."""
    model = ExportedModel.open(path)
    metadata, confs, size_px = model.metadata, arguments.confs, arguments.image_size_px
    if arguments.tta or arguments.choose_conf:
        raise UserError(f"{path}: {FIXED}")
    if metadata.nms and confs is not None and min(confs) < metadata.conf:
        raise UserError(
            f"{path}: the suppression inside drops scores below {metadata.conf:g}, so there is no "
            f"--conf {min(confs):g}; export with a lower --conf, or without --nms"
        )
    if arguments.precision is not None:
        raise UserError(
            f"{path}: was exported in {metadata.precision} and computes in nothing else; leave out "
            "--precision"
        )
    if size_px not in (None, metadata.image_size_px) and not metadata.dynamic_size:
        raise UserError(
            f"{path}: takes images of {metadata.image_size_px} px alone, not of --image-size "
            f"{size_px}; export with --dynamic-size"
        )
    if (task := metadata.config.get("task", "detect")) != "detect":
        raise UserError(f"{path}: holds no detector, for its config's task is {str(task)[:100]!r}")
    config = copy.deepcopy(metadata.config)
    with suppress(ConfigError, KeyError):  # an exported file does not say where its data lie
        config = with_overrides(config, (), path).model_dump(mode="json")  # but below our folder
        saved = load_config(path.with_name("config.yaml")).data["data"]  # of the run it lies in
        config["data"] |= {split: saved[split] for split in ("train", "val", "test")}
    if metadata.nms and arguments.labels not in (None, metadata.labels):
        raise UserError(f"{path}: the suppression inside has {metadata.labels}; leave out --labels")
    if metadata.nms and arguments.nms == "soft":
        raise UserError(f"{path}: the suppression inside is greedy; leave out --nms")
    thresholds = {"conf": metadata.conf, "iou": metadata.iou, "labels": metadata.labels}
    own = {"data": {"image_size": metadata.image_size_px}, "evaluation": thresholds}
    for section, settings in own.items():
        if isinstance(config.get(section), dict):  # else `read_config` says what is wrong
            config[section] |= settings
    return {
        "config": config,
        "class_names": list(metadata.class_names),
        "category_ids": list(metadata.category_ids),
        "precision": {"name": "fp32", "reason": "the file has its own"},
        "progress": {"step": metadata.step},
        "exported": model,
    }
