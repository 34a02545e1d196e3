"""Exported files, opened again: the same interface for ONNX and TorchScript."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from yolo.errors import UserError
from yolo.evaluate.exported_metadata import METADATA_FILE, ExportMetadata
from yolo.evaluate.optional_packages import need
from yolo.records import Detections

SUFFIXES = (".onnx", ".torchscript")

MULTIPLE_PX = 32
"""Height and width of images are multiples of it."""

ABSENT = -1.0
"""The score of a class that a detection is not of; it passes no threshold."""

Run = Callable[[Tensor], list[Tensor]]
"""Images on the CPU -> the file's outputs on the CPU."""


def is_exported(path: Path) -> bool:
    """Whether the name is that of an exported file."""
    return path.suffix.lower() in SUFFIXES


class ExportedModel:
    """A detector that export.py wrote.

    ONNX files run by ONNX Runtime, on a GPU where its CUDA build is installed, on as many CPU
    threads as PyTorch uses. TorchScript files run on the CPU, for a traced graph keeps the device
    that it was traced on.

    Attributes:
        path: the file.
        metadata: that travels in it.
    """

    def __init__(self, path: Path, metadata: ExportMetadata, run: Run) -> None:
        self.path, self.metadata = path, metadata
        self._run = run

    @classmethod
    def open(cls, path: Path) -> ExportedModel:
        """Open a file by its ending.

        Raises:
            UserError: there is no such file, it cannot be read, or export.py did not write it.
        """
        if not is_exported(path):
            raise UserError(f"{path}: must end in {' or '.join(SUFFIXES)}, as export.py writes it")
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        opened = _open_onnx if path.suffix.lower() == ".onnx" else _open_torchscript
        return cls(path, *opened(path))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores before any suppression.

        Args:
            images: uint8 (B, 3, H, W), RGB, letterboxed.

        Returns:
            On the CPU: boxes float32 (B, N, 4), xyxy in pixels of the images, and scores float32
            (B, N, K).

        Raises:
            UserError: images of a size that the file does not take.
        """
        assert not self.metadata.nms, "with the suppression inside, there is only detect()"
        boxes, scores = self._outputs(images)
        return boxes, scores

    def detect(self, images: Tensor) -> list[Detections]:
        """Detections of each image, on the CPU, with the metadata's thresholds.

        Args:
            images: uint8 (B, 3, H, W), RGB, letterboxed.

        Raises:
            UserError: images of a size that the file does not take.
        """
        if not self.metadata.nms:
            return self.metadata.postprocess()(*self(images))
        boxes, scores, labels, counts = self._outputs(images)
        return [
            Detections(boxes_xyxy_px=boxes[i, :n], scores=scores[i, :n], labels=labels[i, :n])
            for i, n in enumerate(counts.tolist())
        ]

    def _outputs(self, images: Tensor) -> list[Tensor]:
        self._check_size(*images.shape[2:])
        images = images.cpu().contiguous()
        return self._run(images.float() if self.metadata.float_input else images)

    def _check_size(self, height: int, width: int) -> None:
        size_px = self.metadata.image_size_px
        if (height, width) == (size_px, size_px):
            return
        if not self.metadata.dynamic_size:
            raise UserError(
                f"{self.path}: takes images of {size_px} x {size_px} px, not of {width} x "
                f"{height}; export with --image-size, or with --dynamic-size"
            )
        if height % MULTIPLE_PX or width % MULTIPLE_PX:
            raise UserError(
                f"{self.path}: takes images whose sides are multiples of {MULTIPLE_PX} px, not "
                f"of {width} x {height}"
            )


class ExportedDetector(nn.Module):
    """An exported file as an evaluator's network: its output is decoded already.

    Args:
        model: with or without the suppression inside. With it, the evaluator's own finds nothing
            left to suppress.
        device: that the output is wanted on.
    """

    def __init__(self, model: ExportedModel, device: torch.device) -> None:
        super().__init__()
        self._model, self._device = model, device

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> boxes (B, N, 4) and scores (B, N, K)."""
        metadata = self._model.metadata
        if metadata.nms:
            boxes, scores = _as_decoded(self._model.detect(images), len(metadata.class_names))
        else:
            boxes, scores = self._model(images)
        return boxes.to(self._device), scores.to(self._device)


def _as_decoded(found: list[Detections], classes: int) -> tuple[Tensor, Tensor]:
    """Detections as boxes (B, N, 4) and scores (B, N, K), ``ABSENT`` but for the own class."""
    most = max(map(len, found))
    boxes = torch.zeros(len(found), most, 4)
    scores = torch.full((len(found), most, classes), ABSENT)
    for i, one in enumerate(found):
        boxes[i, : len(one)] = one.boxes_xyxy_px
        scores[i, torch.arange(len(one)), one.labels] = one.scores
    return boxes, scores


def _open_onnx(path: Path) -> tuple[ExportMetadata, Run]:
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the runtime's own classes, one for each status
        raise UserError(f"{path}: ONNX Runtime cannot open it ({_first_line(error)})") from error

    def run(images: Tensor) -> list[Tensor]:
        outputs = session.run(None, {"images": images.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    entries = session.get_modelmeta().custom_metadata_map
    return ExportMetadata.from_metadata(entries, owner=str(path)), run


def _open_torchscript(path: Path) -> tuple[ExportMetadata, Run]:
    extra = {METADATA_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would have torch.export instead
            module = torch.jit.load(path, map_location="cpu", _extra_files=extra).eval()
        entries = json.loads(extra[METADATA_FILE] or "{}")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a TorchScript file ({_first_line(error)})") from error

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        return list(module(images))

    return ExportMetadata.from_metadata(entries, owner=str(path)), run


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
