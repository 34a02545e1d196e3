"""What a task hands to the training loop, which knows none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from yolo.data.formats.detection import DetectionDataset
from yolo.data.loader import TrainingBatches
from yolo.models.detector import Classifier, Detector
from yolo.models.weights import LoadReport
from yolo.train.evaluation import Evaluator
from yolo.train.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that can be at fault in a config or its data, built before a run's folder is made.

    Attributes:
        title: the model in a few words, for the run's introduction.
        model: with its initial weights, its input normalised by ``model.normalise``.
        loss: ``loss(outputs, targets, images_in_step, images_seen) -> terms by name``.
        accuracy: ``accuracy(outputs, targets) -> (hits, of) by name``, counted while training.
        batches: this rank's stream.
        train: the training set, which says what the labels mean.
        evaluator: built when the precision is known, with the loss on its device.
        metadata: plain data of the task alone that every checkpoint carries.
        data_lines: about the data sets, for the run's introduction.
        load_reports: of the files that the initial weights came from.
    """

    title: str
    model: Detector | Classifier
    loss: nn.Module
    accuracy: Callable[[Any, Any], dict[str, Tensor]] | None
    batches: TrainingBatches
    train: DetectionDataset
    evaluator: Callable[[Precision], Evaluator]
    metadata: dict[str, Any] = field(default_factory=dict)
    data_lines: Sequence[str] = ()
    load_reports: Sequence[LoadReport] = ()

    @property
    def full_metadata(self) -> dict[str, Any]:
        """``metadata``, and what the labels and the model's pixels mean."""
        normalise = self.model.normalise
        return {
            "class_names": list(self.train.class_names),
            "category_ids": [int(i) for i in self.train.category_ids],
            "preprocessing": {
                "mean": normalise.mean.flatten().tolist(),
                "std": normalise.std.flatten().tolist(),
            },
            **self.metadata,
        }
