"""The seventh stage: the truth as predictions scores 1, and what is the most that maps can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from yolo.apps.preflight.encoded_truth import EncodedTruth
from yolo.apps.preflight.flight import Flight, Outcome
from yolo.boxes import cxcywh_to_xyxy
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.postprocess import Postprocess
from yolo.evaluate.detection_evaluator import DetectionEvaluator
from yolo.factory.data import build_evaluation_batches
from yolo.factory.detector import build_coder
from yolo.factory.evaluator import DEFAULT_MONITORS, build_metrics
from yolo.records import Batch
from yolo.train.distributed import Ranks
from yolo.train.precision import Precision

MOST_IMAGES = 160
"""Of a larger validation set so many are drawn, of those with an object first."""

PERFECT = 0.99
"""Below it the evaluation loses boxes; what only rounding costs is less."""

SPOILT = 0.9
"""Below it the figures are worth nothing; a box over the edge of a small data set costs less."""

LOW_BOUND = 0.8
MOST_OF_A_CLASS = 100
"""COCO's metric looks at no more detections of a class in an image, VOC's at all."""


def check_truth(flight: Flight) -> Outcome:
    """Let an oracle take the network's place, then one that must speak in raw maps."""
    val, config = flight.datasets["val"], flight.config
    val = val.select(_chosen(flight, val))
    cpu = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    batches = list(build_evaluation_batches(config, val, cpu))
    exact = _Path(flight, val, batches, coder=nn.Identity())
    perfect = exact.score(_Oracle(batches, len(val.class_names)))
    coder = build_coder(config)
    encoder = EncodedTruth(batches, coder=coder, classes=len(val.class_names))
    bound = _Path(flight, val, batches, coder=coder).score(encoder)
    monitor = config.evaluation.monitor or DEFAULT_MONITORS[config.evaluation.metric]
    placed = f"{encoder.placed:,} of {encoder.truths:,}"
    told = [n for n in dict.fromkeys((monitor, "AP")) if n in perfect]
    return Outcome(
        summary=f"{_told(perfect, told)} on {len(val):,} images; encoded in the network's maps "
        f"and decoded again {_told(bound, told)}, the most that it can reach ({placed} boxes have "
        "a place)",
        fault=_fault(perfect[monitor], monitor, val),
        warnings=_warnings(perfect[monitor], bound[monitor], monitor),
        figures={
            "images": len(val),
            "truth": perfect,
            "encoded": bound,
            "truths": encoder.truths,
            "placed": encoder.placed,
        },
    )


def _chosen(flight: Flight, val: DetectionDataset) -> np.ndarray:
    """The images to score, ascending: without an object among them there would be no figure."""
    packed, order = val.annotations, flight.shuffled(len(val))
    objects = np.bincount(packed.image_index()[~packed.ignored], minlength=len(val))
    empty_last = order[np.argsort(objects[order] == 0, kind="stable")]
    return np.sort(empty_last[:MOST_IMAGES])


def _told(stats: dict[str, float], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {stats[name]:.4f}" for name in names)


def _fault(figure: float, monitor: str, val: DetectionDataset) -> str | None:
    if figure >= SPOILT or _crowded(val):
        return None
    return (
        f"data.val: its own boxes as predictions reach {monitor} {figure:.3f} and not 1, so that "
        "no network could; its annotations contradict themselves (boxes outside their images, or "
        "several of the same object?)."
    )


def _warnings(figure: float, bound: float, monitor: str) -> list[str]:
    warnings = []
    if figure < PERFECT:
        warnings.append(f"the validation set's own boxes reach {monitor} {figure:.3f} and not 1")
    if bound < LOW_BOUND:
        warnings.append(
            f"no training can reach more than {monitor} {bound:.3f}: boxes share cells and "
            "anchors; a larger data.image_size or a head with more of them has more places"
        )
    return warnings


def _crowded(val: DetectionDataset) -> bool:
    """Whether an image has more of a class than COCO's metric looks at."""
    packed, classes = val.annotations, len(val.class_names)
    of_class = packed.image_index() * classes + packed.labels
    return bool(np.bincount(of_class, minlength=1).max() > MOST_OF_A_CLASS)


@dataclass(frozen=True)
class _Path:
    """The evaluation from raw maps to figures, on batches that are there."""

    flight: Flight
    val: DetectionDataset
    batches: Sequence[Batch]
    coder: nn.Module

    def score(self, model: nn.Module) -> dict[str, float]:
        evaluation = self.flight.config.evaluation
        monitor = evaluation.monitor or DEFAULT_MONITORS[evaluation.metric]
        most = max(batch.targets.max_per_image for batch in self.batches)
        evaluator = DetectionEvaluator(
            batches=self.batches,
            images=len(self.val),
            metrics=build_metrics(evaluation, self.val),
            category_ids=self.val.category_ids,
            class_names=self.val.class_names,
            monitor=monitor,
            coder=self.coder,
            postprocess=Postprocess(conf=0.5, iou=1.0, max_detections=most),
            loss=None,
            precision=Precision("fp32"),
            ranks=Ranks(rank=0, world_size=1, device=torch.device("cpu")),
        )
        found = evaluator.find(model, lambda: False)
        assert found is not None
        return evaluator.score(found).stats


class _Oracle(nn.Module):
    """Answers each batch with its truth: boxes (B, N, 4) in pixels and scores (B, N, K)."""

    def __init__(self, batches: Sequence[Batch], classes: int) -> None:
        super().__init__()
        self._batches, self._classes = iter(batches), classes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        targets, size_px = next(self._batches).targets, images.shape[-1]
        boxes = torch.zeros(len(images), targets.max_per_image, 4)
        scores = torch.zeros(len(images), targets.max_per_image, self._classes)
        for image in range(len(images)):
            mine = (targets.image_index == image) & ~targets.ignored
            count = int(mine.sum())
            boxes[image, :count] = cxcywh_to_xyxy(targets.boxes_cxcywh_norm[mine]) * size_px
            scores[image, torch.arange(count), targets.labels[mine]] = 1.0
        return boxes, scores
