"""A trained model as a function: images in, named boxes in their pixels out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from yolo.apps.predict.prediction import ImageLike, Prediction, to_rgb
from yolo.detection.postprocess import Labels, Postprocess
from yolo.detection.tta import AugmentedDetector
from yolo.errors import UserError
from yolo.evaluate.exported import FIXED, ExportedModel, is_exported
from yolo.factory.detector import Coder, build_coder, build_postprocess, check_yolov1_size
from yolo.factory.initial_weights import load_trained_detector
from yolo.letterbox import Letterbox
from yolo.models.detector import Detector
from yolo.models.fusing import cast_weights, fuse
from yolo.records import Detections
from yolo.train.distributed import prepare_device
from yolo.train.failures import explain_out_of_memory
from yolo.train.precision import DTYPES, Format, Precision, faster_format, precision_by_rule
from yolo.train.run_folder import checkpoint_file

CONF = 0.25
"""Lowest score that is reported unless another is asked for: training scores from far lower on,
for its metric wants everything, but nobody wants to see it."""

Prepared = tuple[np.ndarray, Letterbox]
"""An image in the network's square: uint8 (S, S, 3), and the way back."""


class TrainedNetwork:
    """A detector with batch norm folded into the convolutions, channels-last, in a fast format.

    The number format ``auto`` is bf16 or fp16 on a GPU, as in training. On a CPU that computes bf16
    natively it is what one image of ``size_px`` takes less time in, measured for about a second;
    else fp32. The training's own choice does not serve: it counts the backward pass, perhaps of
    another machine. ``detector`` is copied; the attribute is the copy in the chosen ``precision``.
    With ``tta`` it finds what an ``AugmentedDetector`` does.
    """

    def __init__(
        self,
        detector: Detector,
        coder: Coder,
        *,
        device: torch.device,
        size_px: int,
        precision: Format | Literal["auto"] = "auto",
        tta: bool = False,
    ) -> None:
        fused = fuse(detector).to(device).to(memory_format=torch.channels_last)
        self.device = device
        self.batch_size = 8 if device.type == "cuda" else 1  # worth computing together
        self.precision = precision_by_rule(precision, device) or _faster_format(fused, size_px)
        self.detector = cast_weights(fused, DTYPES[self.precision.name])
        parts = self.detector, coder.to(device)
        self._decode = AugmentedDetector(*parts) if tta else nn.Sequential(*parts)
        self.description = f"{self.precision.name} on {device} ({self.precision.reason})"

    def detect(self, images: Tensor, postprocess: Postprocess) -> list[Detections]:
        """uint8 (B, 3, S, S) on the host -> detections in pixels of that input, on the host."""
        with (
            torch.inference_mode(),
            explain_out_of_memory(self.device, "choose a smaller image size, or the CPU"),
        ):
            with self.autocast():
                decoded = self._decode(images.to(self.device))
            return [found.to("cpu") for found in postprocess(*decoded)]

    def autocast(self) -> AbstractContextManager:
        """The context in which ``detector`` runs."""
        return self.precision.autocast(self.device)


@dataclass(kw_only=True, eq=False)
class Predictor:
    """Find objects in images with a trained detector.

    Images are letterboxed and boxes suppressed as in validation, so that it finds what validation
    scores, but one label for a box. Calls from several threads do not disturb each other.
    """

    network: TrainedNetwork | ExportedModel
    class_names: Sequence[str]
    category_ids: Sequence[int | str]  # by label, as the names are
    image_size_px: int  # side of the network's input
    postprocess: Postprocess  # with the thresholds that hold where a call names none
    config: Mapping[str, Any]  # the training's, as plain data
    class_conf: Sequence[float] = ()  # by label, the lowest score too; empty: the same for all

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        *,
        device: str = "auto",
        conf: float | Literal["auto"] | None = None,
        iou: float | None = None,
        image_size_px: int | None = None,
        precision: Format | Literal["auto"] = "auto",
        labels: Labels | None = None,
        tta: bool = False,
    ) -> Predictor:
        """Open a checkpoint, or an ONNX file that export.py wrote.

        Args:
            path: the file, or a run's folder for its ``best.pt``.
            device: a name for ``torch.device``, or ``auto``; an exported file finds its own.
            conf: lowest score to report; None for 0.25, auto for each class's own, which
                ``validation.py --choose-conf`` put into the checkpoint.
            iou: of two boxes of one class that overlap by more, the better stays; None for the
                training's.
            image_size_px: side of the network's input, a multiple of 32; None for the training's.
            precision: see ``TrainedNetwork``; an exported file has its own, auto.
            labels: of a box; None for its best class. A file with its suppression inside has its
                own.
            tta: find with test-time augmentation; see ``AugmentedDetector``.
        """
        path = checkpoint_file(Path(path))
        if image_size_px is not None and (image_size_px < 32 or image_size_px % 32):
            raise UserError(f"the image size must be a multiple of 32, not {image_size_px}")
        network: TrainedNetwork | ExportedModel
        if is_exported(path):
            if tta or precision != "auto":
                raise UserError(f"{path}: {FIXED}")
            network, size_px, own = _open_exported(path, image_size_px)
            content: Mapping[str, Any] = vars(network.metadata)
        else:
            build = partial(TrainedNetwork, precision=precision, tta=tta)
            content, network, size_px, own = _open_trained(path, image_size_px, device, build)
        class_conf: Sequence[float] = ()
        if conf == "auto":
            class_conf = content.get("class_conf", ())
            if not class_conf:
                raise UserError(
                    f"{path}: has no confidences of its classes; validation.py --choose-conf puts "
                    "them into a checkpoint, before it is exported"
                )
            conf = min(class_conf)
        return cls(
            network=network,
            class_names=content["class_names"],
            category_ids=content["category_ids"],
            image_size_px=size_px,
            postprocess=_with(replace(own, labels=labels or own.labels), conf, iou),
            config=content["config"],
            class_conf=class_conf,
        )

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        conf: float | None = None,
        iou: float | None = None,
    ) -> list[Prediction]:
        """A prediction for each image, of any sizes; ``conf`` and ``iou`` are of this call."""
        if isinstance(images, str | os.PathLike | Image.Image):
            images = [images]
        elif isinstance(images, np.ndarray):
            images = list(images) if images.ndim == 4 else [images]
        found: list[Prediction] = []
        for start in range(0, len(images), self.network.batch_size):
            some = images[start : start + self.network.batch_size]
            found += self.find([self.prepare(to_rgb(image)) for image in some], conf=conf, iou=iou)
        return found

    def prepare(self, image: np.ndarray) -> Prepared:
        """Letterbox an RGB image (H, W, 3): the part of the work that needs no network."""
        letterbox = Letterbox.fit(image.shape[:2], self.image_size_px)
        return letterbox.image(image), letterbox

    def find(
        self, prepared: Sequence[Prepared], *, conf: float | None = None, iou: float | None = None
    ) -> list[Prediction]:
        """Run the network once over prepared images; see ``__call__``."""
        squares = torch.from_numpy(np.stack([square for square, _ in prepared]))
        images = squares.permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S), channels-last
        predictions = []
        every = self.network.detect(images, _with(self.postprocess, conf, iou))
        for found, (_, letterbox) in zip(every, prepared, strict=True):
            found = found.above_own(self.class_conf) if self.class_conf else found
            names = [self.class_names[label] for label in found.labels.tolist()]
            found = replace(found, boxes_xyxy_px=letterbox.undo(found.boxes_xyxy_px))
            predictions.append(Prediction(found, names, letterbox.source_hw))
        return predictions


def _faster_format(detector: Detector, size_px: int) -> Precision:
    """The format in which the CPU predicts one image faster."""
    networks = {name: cast_weights(detector, DTYPES[name]) for name in ("fp32", "bf16")}
    image = torch.full((1, 3, size_px, size_px), 128, dtype=torch.uint8)
    image = image.to(memory_format=torch.channels_last)

    def predict(name: Format) -> None:
        with torch.inference_mode(), Precision(name).autocast(torch.device("cpu")):
            networks[name](image)

    return faster_format(predict, "predicts", warm_up_seconds=0.1, timed_seconds=1.5)


def _with(postprocess: Postprocess, conf: float | None, iou: float | None) -> Postprocess:
    """The suppression with other thresholds where some are given."""
    conf = postprocess.conf if conf is None else conf
    iou = postprocess.iou if iou is None else iou
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise UserError(f"{name} must be from 0 to 1, not {value:g}")
    return replace(postprocess, conf=conf, iou=iou)


def _open_trained(
    path: Path, image_size_px: int | None, device: str, build: Callable[..., TrainedNetwork]
) -> tuple[Mapping[str, Any], TrainedNetwork, int, Postprocess]:
    """The checkpoint's content, its network, the side of its input, and the suppression."""
    content, config, detector = load_trained_detector(path)
    size_px = image_size_px or config.data.image_size
    check_yolov1_size(path, config, size_px, f", not at {size_px}")
    place = prepare_device(None if device == "auto" else [device])
    network = build(detector, build_coder(config), device=place, size_px=size_px)
    own = replace(build_postprocess(config), labels="best_class", conf=CONF)
    return content, network, size_px, own


def _open_exported(path: Path, image_size_px: int | None) -> tuple[ExportedModel, int, Postprocess]:
    """The model, the side of its input, and the suppression, whose own is fixed in the file."""
    model = ExportedModel.open(path)
    metadata = model.metadata
    size_px = image_size_px or metadata.image_size_px
    if size_px != metadata.image_size_px and not metadata.dynamic_size:
        raise UserError(
            f"{path}: was exported only for {metadata.image_size_px} px, not for {size_px}; "
            "export it for another size, or for any"
        )
    own = metadata.postprocess()
    if metadata.nms:
        return model, size_px, replace(own, conf=max(CONF, own.conf))
    return model, size_px, replace(own, conf=CONF, labels="best_class")
