"""Scoring a checkpoint: the detector, its data and its settings come from the file alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo.build.data import Split, build_dataset, check_same_classes
from yolo.build.detector import build_coder, build_detector
from yolo.build.evaluator import build_evaluator
from yolo.config import Config, ConfigError, config_from_dict
from yolo.engine.checkpoint import load_checkpoint
from yolo.engine.detection_evaluator import DetectionEvaluator, Found
from yolo.engine.distributed import Ranks, join
from yolo.engine.out_of_memory import explain_out_of_memory
from yolo.engine.precision import Precision
from yolo.errors import UserError
from yolo.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A trained detector and its evaluator.

    Attributes:
        detector: on its device, in evaluation mode.
        evaluator: over the chosen split.
        config: the checkpoint's.
        step: of the checkpoint.
        category_ids: label -> category id.
        images: to be scored.
    """

    detector: Detector
    evaluator: DetectionEvaluator
    config: Config
    step: int
    category_ids: Sequence[int]
    images: int


def score_checkpoint(
    path: Path,
    *,
    devices: Sequence[str] | None,
    confs: Sequence[float] | None,
    split: Split,
    image_size_px: int | None,
    per_class: bool,
    say: Callable[[str], None],
    detections_path: Path | None = None,
) -> dict[str, Any]:
    """Run the network once and score it at each confidence.

    Args:
        path: the checkpoint.
        devices: see ``join``.
        confs: confidence thresholds; None for the training's own.
        split, image_size_px, per_class: see ``build_scoring``.
        say: prints lines.
        detections_path: where to write the boxes as COCO results, if anywhere.

    Returns:
        ``{"results": [{"confidence", "found_boxes", "stats"}, ...], ...}``.

    Raises:
        UserError: as ``build_scoring``; or the results cannot be written.
    """
    ranks = join(devices)
    scoring = build_scoring(
        path,
        ranks,
        split=split,
        image_size_px=image_size_px,
        lowest_conf=None if confs is None else min(confs),
        per_class=per_class,
    )
    say(f"{path} (step {scoring.step}): {scoring.images:,} images of data.{split}, {ranks.device}")
    with explain_out_of_memory(ranks.device, "choose a smaller --image-size, or --gpu cpu"):
        found = scoring.evaluator.find(scoring.detector, lambda: False)
    assert found is not None
    own_conf = [scoring.config.evaluation.conf]
    results = [_score_at(conf, scoring, found, say) for conf in confs or own_conf]
    speed = {
        "network": found.images / found.network_seconds,
        "network_and_postprocessing": found.images / found.total_seconds,
    }
    say(
        f"\n{speed['network']:.1f} images/s network, "
        f"{speed['network_and_postprocessing']:.1f} images/s network and post-processing"
    )
    if detections_path is not None:
        _write_detections(detections_path, found, scoring.category_ids)
    return {
        "checkpoint": str(path),
        "step": scoring.step,
        "split": split,
        "results": results,
        "images_per_second": speed,
    }


def _score_at(
    conf: float, scoring: Scoring, found: Found, say: Callable[[str], None]
) -> dict[str, Any]:
    """Score what was found at one confidence, print it and return it."""
    kept = found.above(conf)
    result = scoring.evaluator.score(kept)
    say(f"\nconfidence {conf:g}: {len(kept.scores):,} boxes")
    say(scoring.evaluator.table(result))
    return {"confidence": conf, "found_boxes": len(kept.scores), "stats": result.stats}


def _write_detections(path: Path, found: Found, category_ids: Sequence[int]) -> None:
    """COCO's results format: a list of image_id, category_id, bbox (x, y, w, h), score."""
    rows = [
        {
            "image_id": int(image),
            "category_id": category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image, label, (x1, y1, x2, y2), score in zip(
            found.image_ids,
            found.labels,
            found.boxes_xyxy_px.tolist(),
            found.scores.tolist(),
            strict=True,
        )
    ]
    path.write_text(json.dumps(rows))


def build_scoring(
    path: Path,
    ranks: Ranks,
    *,
    split: Split = "val",
    image_size_px: int | None = None,
    lowest_conf: float | None = None,
    per_class: bool = False,
) -> Scoring:
    """Read a checkpoint and prepare its scoring with the settings it was trained with.

    Args:
        path: the checkpoint.
        ranks: where to compute.
        split: ``train``, ``val`` or ``test`` of the checkpoint's config.
        image_size_px: another input size; None for the training's.
        lowest_conf: the confidence threshold; None for the training's.
        per_class: list each class too.

    Raises:
        UserError: the checkpoint or the data cannot be read, or do not belong together.
    """
    checkpoint = load_checkpoint(path)
    config = _read_config(path, checkpoint)
    dataset = build_dataset(config, split)
    ids, names = checkpoint["category_ids"], checkpoint["class_names"]
    check_same_classes(dataset, split, ids, names, owner=str(path))
    if split == "val":
        dataset = dataset.share(config.evaluation.share, seed=config.seed)
    evaluator = build_evaluator(
        config,
        dataset,
        ranks,
        coder=build_coder(config).to(ranks.device),
        precision=Precision(**checkpoint["precision"]),
        per_class=per_class,
        image_size_px=image_size_px,
        conf=lowest_conf,
    )
    return Scoring(
        detector=load_detector(path, checkpoint, config).to(ranks.device),
        evaluator=evaluator,
        config=config,
        step=checkpoint["progress"]["step"],
        category_ids=checkpoint["category_ids"],
        images=len(dataset),
    )


def load_detector(path: Path, checkpoint: Mapping[str, Any], config: Config) -> Detector:
    """The checkpoint's detector: averaged weights if it has them, with the trained statistics."""
    detector = build_detector(config, checkpoint["class_names"], pretrained=False)
    state = dict(checkpoint["model"])
    if checkpoint["ema"] is not None:
        for name, _ in detector.named_parameters():
            state[name] = checkpoint["ema"][f"module.{name}"]
    try:
        detector.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{path}: its weights do not fit the model that its config describes; "
            "it was written by another version of this code"
        ) from error
    return detector.eval()


def _read_config(path: Path, checkpoint: Mapping[str, Any]) -> Config:
    try:
        return config_from_dict(checkpoint["config"])
    except ConfigError as error:
        raise UserError(
            f"{path}: its config is not one that this version of the code knows: {error}"
        ) from error
