"""Scoring a trained model: its figures, printed and as a report, at any confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo.data.formats.detection import DetectionDataset
from yolo.evaluate.evaluators import ClassificationEvaluator, DetectionEvaluator, Found
from yolo.evaluate.metrics.metric import PrecisionRecall
from yolo.evaluate.metrics.voc import VocMetric
from yolo.train.failures import explain_out_of_memory
from yolo.train.interruption import Interruption

Log = Callable[[str], None]
"""Prints lines."""


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A trained model and what it is scored on."""

    path: Path  # the checkpoint, or the exported file
    step: int  # of the checkpoint
    split: str  # the data set's name: train, val or test
    dataset: DetectionDataset
    model: nn.Module  # on its device

    def log_start(self, log: Log, device: torch.device) -> None:
        images = f"{len(self.dataset):,} images of data.{self.split}"
        log(f"{self.path} (step {self.step}): {images}, {device}")

    def report(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """What the report of any task begins with."""
        of_model = {"checkpoint": str(self.path), "step": self.step, "split": self.split}
        return {**of_model, "results": results}


@dataclass(frozen=True, kw_only=True)
class ClassifierScorer(ScoredModel):
    evaluator: ClassificationEvaluator

    def score(self, log: Log) -> dict[str, Any]:
        """Run the network once and print its figures.

        Returns:
            ``{"checkpoint", "step", "split", "results": [{"stats": {"top1", "top5", "loss", ...}}],
            "images_per_second"}``; of val these are the very figures that training logged.
        """
        device = self.evaluator.network.ranks.device
        self.log_start(log, device)
        with explain_out_of_memory(device, "choose --gpu cpu"):
            evaluation = self.evaluator.evaluate(self.model, Interruption())
        assert evaluation is not None
        log(evaluation.text)
        report = self.report([{"stats": evaluation.figures}])
        return {**report, "images_per_second": {"network": evaluation.images_per_second}}


@dataclass(frozen=True, kw_only=True)
class DetectorScorer(ScoredModel):
    evaluator: DetectionEvaluator  # with the loss; of an exported file without
    voc_iou: float  # from which on the curves take a box for a truth's
    image_size_px: int  # that it was trained at

    def score(
        self, confs: Sequence[float], log: Log, outputs: Sequence[Callable[[Found], object]] = ()
    ) -> dict[str, Any]:
        """Run the network once and print its figures at each confidence; ``outputs`` write boxes.

        No confidence is below that of the evaluator's ``postprocess``.

        Returns:
            ``{"checkpoint", "step", "split", "results": [{"confidence", "found_boxes", "stats"}],
            "losses", "accuracy", "images_per_second"}``.
        """
        device = self.evaluator.network.ranks.device
        self.log_start(log, device)
        with explain_out_of_memory(device, "choose a smaller --image-size, or --gpu cpu"):
            found = self.evaluator.find(self.model, Interruption())
        assert found is not None
        results = [self._score_above(conf, found, log) for conf in confs]
        run = found.run
        losses = {"loss": sum(run.losses.values()), **run.losses} if run.losses else {}
        speed = {
            "network": run.images / run.network_seconds,
            "network_and_postprocessing": run.images / run.total_seconds,
        }
        log("")
        if losses:
            terms = ", ".join(f"{name} {value:.4g}" for name, value in run.losses.items())
            shares = ", ".join(f"{name} {value:.4f}" for name, value in found.accuracy.items())
            log(f"loss {losses['loss']:.4g} ({terms}); accuracy: {shares}")
        log(
            f"{speed['network']:.1f} images/s network, "
            f"{speed['network_and_postprocessing']:.1f} images/s network and post-processing"
        )
        for write in outputs:
            write(found)
        of_run = {"losses": losses, "accuracy": found.accuracy, "images_per_second": speed}
        return self.report(results) | of_run

    def _score_above(self, conf: float, found: Found, log: Log) -> dict[str, Any]:
        kept = found.above(conf)
        result = self.evaluator.score(kept)
        log(f"\nconfidence {conf:g}: {len(kept.scores):,} boxes")
        log(result.table)
        return {"confidence": conf, "found_boxes": len(kept.scores), "stats": result.stats}


@dataclass(frozen=True)
class ModelCurves:
    """Precision over recall of one model."""

    checkpoint: Path
    step: int
    split: str
    iou: float  # from which on a box was taken for a truth's
    curves: dict[str, PrecisionRecall]  # by class name, in the order of the labels

    @classmethod
    def of_found(cls, scorer: DetectorScorer, found: Found) -> ModelCurves:
        metric = VocMetric.of_dataset(scorer.dataset, iou=scorer.voc_iou)
        of_labels = metric.curves(found.boxes).values()
        curves = dict(zip(scorer.dataset.class_names, of_labels, strict=True))
        return cls(scorer.path, scorer.step, scorer.split, scorer.voc_iou, curves)
