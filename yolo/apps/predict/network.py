"""What finds boxes in a batch: a trained detector made fast, or an exported file."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import Tensor

from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel
from yolo.factory.detector import Coder
from yolo.models.detector import Detector
from yolo.models.fusing import fuse
from yolo.records import Detections
from yolo.train.failures import explain_out_of_memory
from yolo.train.precision import DTYPES, Format, Precision, faster_format, precision_by_rule

WARM_UP_SECONDS, TIMED_SECONDS = 0.1, 1.5
"""Of timing number formats at a start: a round warms up, and after so long none begins."""


class Network(Protocol):
    """Finds boxes in letterboxed images.

    Attributes:
        batch_size: images that are worth computing together.
        description: how it computes, for the user.
    """

    batch_size: int
    description: str

    def detect(self, images: Tensor, postprocess: Postprocess) -> list[Detections]:
        """uint8 (B, 3, S, S) on the host -> detections in pixels of that input, on the host."""


class TrainedNetwork:
    """A detector with batch norm folded into the convolutions, channels-last, in a fast format.

    The number format ``auto`` is bf16 or fp16 on a GPU, as in training. On a CPU that computes bf16
    natively it is what one image takes less time in, measured for about a second; else fp32. The
    training's own choice does not serve: it counts the backward pass, perhaps of another machine.

    Args:
        detector: trained; it is copied.
        coder: raw maps to boxes.
        device: where to compute.
        size_px: side of the input, for the measurement.
        precision: a number format, or ``auto``.

    Attributes:
        detector: the fused copy, its weights in the chosen format.
        precision: the format and why.
        device: as given.
    """

    def __init__(
        self,
        detector: Detector,
        coder: Coder,
        *,
        device: torch.device,
        size_px: int,
        precision: Format | Literal["auto"] = "auto",
    ) -> None:
        fused = fuse(detector).to(device).to(memory_format=torch.channels_last)
        self.device, self._coder = device, coder.to(device)
        self.batch_size = 8 if device.type == "cuda" else 1
        self.precision = precision_by_rule(precision, device) or _measure(fused, size_px)
        self.detector = cast_weights(fused, self.precision.name)
        self.description = f"{self.precision.name} on {device} ({self.precision.reason})"

    def detect(self, images: Tensor, postprocess: Postprocess) -> list[Detections]:
        """See ``Network``; ``UserError`` where the device's memory does not suffice."""
        with (
            torch.inference_mode(),
            explain_out_of_memory(self.device, "choose a smaller image size, or the CPU"),
        ):
            with self.autocast():
                raw = self.detector(images.to(self.device))
            found = postprocess(*self._coder(raw))
            return [detections.to("cpu") for detections in found]

    def autocast(self) -> AbstractContextManager:
        """The context in which ``detector`` runs."""
        return self.precision.autocast(self.device)


class ExportedNetwork:
    """An exported file; suppression that it contains keeps the file's own thresholds."""

    batch_size = 1

    def __init__(self, model: ExportedModel, name: str) -> None:
        self._model, self._name = model, name
        self.description = f"exported, {model.metadata.precision}"

    def detect(self, images: Tensor, postprocess: Postprocess) -> list[Detections]:
        """See ``Network``; ``UserError`` for other thresholds than those fixed inside the file."""
        metadata = self._model.metadata
        if not metadata.nms:
            return postprocess(*self._model(images))
        if postprocess.conf < metadata.conf or postprocess.iou != metadata.iou:
            raise UserError(
                f"{self._name}: contains its suppression, with IoU {metadata.iou:g} and "
                f"confidences from {metadata.conf:g} on; ask for these, or export without --nms"
            )
        return [found.above(postprocess.conf) for found in self._model.detect(images)]


def cast_weights(detector: Detector, name: Format) -> Detector:
    """A copy with the weights in the format that autocast would cast them to at each pass.

    The normalisation stays in float32, as under autocast.
    """
    if name == "fp32":
        return detector
    detector = copy.deepcopy(detector)
    for part in (detector.encoder, detector.neck, detector.head):
        part.to(DTYPES[name])
    return detector


def _measure(detector: Detector, size_px: int) -> Precision:
    """The format in which the CPU predicts one image faster."""
    formats: tuple[Format, ...] = ("fp32", "bf16")
    networks = {name: cast_weights(detector, name) for name in formats}
    image = torch.full((1, 3, size_px, size_px), 128, dtype=torch.uint8)
    image = image.to(memory_format=torch.channels_last)

    def predict(name: Format) -> None:
        with torch.inference_mode(), Precision(name).autocast(torch.device("cpu")):
            networks[name](image)

    return faster_format(
        predict, "predicts", warm_up_seconds=WARM_UP_SECONDS, timed_seconds=TIMED_SECONDS
    )
