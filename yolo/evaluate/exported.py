"""Exported files: their metadata, and the same interface to run ONNX and TorchScript."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError
from yolo.records import Detections

METADATA_FILE = "card.json"
"""The metadata's place among the extra files of a TorchScript file."""

_VERSION = 1
_PREFIX = "yolo."
"""Of every entry, so that they cannot be taken for those of the program that wrote the graph."""

_SUFFIXES = (".onnx", ".torchscript")
_MULTIPLE_PX = 32  # of which height and width of images are multiples

Package = Literal["onnx", "onnxscript", "onnxruntime"]

Run = Callable[[Tensor], list[Tensor]]
"""Images on the CPU -> the file's outputs on the CPU."""


def need(package: Package) -> ModuleType:
    """Import a package that only exporting needs; nothing else is ever imported by a name."""
    assert package in get_args(Package)
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"ONNX files need the package {package}, which is not installed; install it with "
            "`pip install -e '.[export]'`"
        ) from error


@dataclass(frozen=True, kw_only=True)
class ExportMetadata:
    """The metadata that travels in an exported file.

    The thresholds and ``labels`` are of the suppression, see ``Postprocess``. With ``nms`` they are
    part of the graph, otherwise they are what training scored with.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]  # by label
    image_size_px: int  # side of the network's input
    fill_colour_rgb: tuple[int, ...]  # of the letterbox
    conf: float
    iou: float
    max_detections: int
    max_candidates: int
    labels: Literal["best_class", "all_classes"]
    generation: str  # the head's type
    config: dict[str, Any]  # the training's whole config
    step: int  # of the checkpoint
    precision: Literal["fp32", "fp16"]  # of the convolutions
    dynamic_size: bool  # any height and width that are multiples of 32 will do
    nms: bool  # the suppression is inside
    float_input: bool = False  # images are float32, 0..255, and not uint8

    def postprocess(self) -> Postprocess:
        return Postprocess(
            **{field.name: getattr(self, field.name) for field in fields(Postprocess)}
        )

    def to_metadata(self) -> dict[str, str]:
        """One entry for each attribute, its value as JSON."""
        content = {"version": _VERSION, **asdict(self)}
        return {_PREFIX + name: json.dumps(value) for name, value in content.items()}

    @classmethod
    def from_metadata(cls, entries: Mapping[str, str], *, owner: str) -> ExportMetadata:
        """The metadata among a file's entries; ``owner`` names the file in errors."""
        if _PREFIX + "version" not in entries:
            raise UserError(
                f"{owner}: not a file that export.py wrote: its metadata has no classes and sizes"
            )
        try:
            names = [field.name for field in fields(cls)]
            content = {name: json.loads(entries[_PREFIX + name]) for name in names}
            version = json.loads(entries[_PREFIX + "version"])
        except (KeyError, ValueError) as error:
            raise UserError(f"{owner}: its metadata is damaged ({error})") from error
        if version != _VERSION:
            raise UserError(f"{owner}: export version {version}; this code reads {_VERSION}")
        lists = ("class_names", "category_ids", "fill_colour_rgb")
        return cls(**content | {name: tuple(content[name]) for name in lists})


def is_exported(path: Path) -> bool:
    """Whether the name is that of an exported file."""
    return path.suffix.lower() in _SUFFIXES


@dataclass(frozen=True)
class ExportedModel:
    """A detector that export.py wrote.

    ONNX files run by ONNX Runtime, on a GPU where its CUDA build is installed, on as many CPU
    threads as PyTorch uses. TorchScript files run on the CPU, for a traced graph keeps the device
    that it was traced on.
    """

    path: Path
    metadata: ExportMetadata
    run: Run

    @classmethod
    def open(cls, path: Path) -> ExportedModel:
        """Open a file by its ending."""
        if not is_exported(path):
            raise UserError(f"{path}: must end in {' or '.join(_SUFFIXES)}, as export.py writes it")
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        opened = _open_onnx if path.suffix.lower() == ".onnx" else _open_torchscript
        return cls(path, *opened(path))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores before any suppression, on the CPU.

        Images are uint8 (B, 3, H, W), RGB, letterboxed. Boxes are float32 (B, N, 4), xyxy in pixels
        of the images, scores float32 (B, N, K). A size that the file does not take is a UserError.
        """
        assert not self.metadata.nms, "with the suppression inside, there is only detect()"
        boxes, scores = self._outputs(images)
        return boxes, scores

    def detect(self, images: Tensor) -> list[Detections]:
        """Detections of each image, on the CPU, with the metadata's thresholds; as ``__call__``."""
        if not self.metadata.nms:
            return self.metadata.postprocess()(*self(images))
        boxes, scores, labels, counts = self._outputs(images)
        return [
            Detections(boxes_xyxy_px=boxes[i, :n], scores=scores[i, :n], labels=labels[i, :n])
            for i, n in enumerate(counts.tolist())
        ]

    def _outputs(self, images: Tensor) -> list[Tensor]:
        size_px, (height, width) = self.metadata.image_size_px, images.shape[2:]
        is_other = (height, width) != (size_px, size_px)
        if is_other and not self.metadata.dynamic_size:
            raise UserError(
                f"{self.path}: takes images of {size_px} x {size_px} px, not of {width} x "
                f"{height}; export with --image-size, or with --dynamic-size"
            )
        if is_other and (height % _MULTIPLE_PX or width % _MULTIPLE_PX):
            raise UserError(
                f"{self.path}: takes images whose sides are multiples of {_MULTIPLE_PX} px, not "
                f"of {width} x {height}"
            )
        images = images.cpu().contiguous()
        return self.run(images.float() if self.metadata.float_input else images)


class ExportedDetector(nn.Module):
    """An exported file as an evaluator's network: its output is decoded already.

    With the suppression inside, the evaluator's own finds nothing left to suppress.
    """

    def __init__(self, model: ExportedModel, device: torch.device) -> None:
        super().__init__()
        self._model, self._device = model, device

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> boxes (B, N, 4) and scores (B, N, K), on the device."""
        metadata = self._model.metadata
        if not metadata.nms:
            boxes, scores = self._model(images)
            return boxes.to(self._device), scores.to(self._device)
        found = self._model.detect(images)
        most = max(map(len, found))
        boxes = torch.zeros(len(found), most, 4)
        scores = torch.full((len(found), most, len(metadata.class_names)), -1.0)  # passes nowhere
        for i, one in enumerate(found):
            boxes[i, : len(one)] = one.boxes_xyxy_px
            scores[i, torch.arange(len(one)), one.labels] = one.scores
        return boxes.to(self._device), scores.to(self._device)


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
