"""Exported files, opened again: the same interface for ONNX and TorchScript."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo.apps.export.torchscript import METADATA_FILE
from yolo.errors import UserError
from yolo.evaluate.exported_graph import MULTIPLE_PX
from yolo.evaluate.exported_metadata import ExportMetadata
from yolo.evaluate.optional_packages import need
from yolo.records import Detections

SUFFIXES = (".onnx", ".torchscript")

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
        metadata: what the file says of itself.
    """

    def __init__(self, path: Path, metadata: ExportMetadata, run: Run) -> None:
        self.metadata = metadata
        self._path, self._run = path, run

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
        self._check_size(images)
        images = images.cpu().contiguous()
        return self._run(images.float() if self.metadata.float_input else images)

    def _check_size(self, images: Tensor) -> None:
        height, width = images.shape[2:]
        size_px = self.metadata.image_size_px
        if (height, width) == (size_px, size_px):
            return
        if not self.metadata.dynamic_size:
            raise UserError(
                f"{self._path}: takes images of {size_px} x {size_px} px, not of {width} x "
                f"{height}; export with --image-size, or with --dynamic-size"
            )
        if height % MULTIPLE_PX or width % MULTIPLE_PX:
            raise UserError(
                f"{self._path}: takes images whose sides are multiples of {MULTIPLE_PX} px, not "
                f"of {width} x {height}"
            )


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
    metadata = ExportMetadata.from_metadata(
        session.get_modelmeta().custom_metadata_map, owner=str(path)
    )
    return metadata, lambda images: _run_onnx(session, images)


def _run_onnx(session: Any, images: Tensor) -> list[Tensor]:
    outputs: list[np.ndarray] = session.run(None, {"images": images.numpy()})
    return [torch.from_numpy(output) for output in outputs]


def _open_torchscript(path: Path) -> tuple[ExportMetadata, Run]:
    extra = {METADATA_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would have torch.export instead
            module = torch.jit.load(path, map_location="cpu", _extra_files=extra).eval()
        entries = json.loads(extra[METADATA_FILE] or "{}")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a TorchScript file ({_first_line(error)})") from error
    metadata = ExportMetadata.from_metadata(entries, owner=str(path))
    return metadata, lambda images: _run_torchscript(module, images)


@torch.inference_mode()
def _run_torchscript(module: torch.jit.ScriptModule, images: Tensor) -> list[Tensor]:
    return list(module(images))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
