"""Exported files: their metadata, and ONNX files run as a detector."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from yolo.detection.postprocess import Labels, Postprocess, Suppression
from yolo.errors import UserError
from yolo.records import Detections
from yolo.train.checkpoint import read_record
from yolo.train.progress import Count

_VERSION = 1
_PREFIX = "yolo."
"""Of every entry, so that they cannot be taken for those of the program that wrote the graph."""

FIXED = "an exported file is fixed; --tta, --precision and --choose-conf are for checkpoints"

_MULTIPLE_PX = 32  # of which height and width of images are multiples

Share = Annotated[float, Field(ge=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Some = Annotated[int, Field(ge=1, le=2**31 - 1)]

Package = Literal["onnx", "onnxscript", "onnxruntime"]

Array = tuple[str, str, Sequence[Any]]
"""Name, type as ONNX Runtime calls it, and lengths."""

Arrays = dict[str, tuple[str, tuple[int | None, ...]]]
"""Name -> type and lengths, None for any."""

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

    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    category_ids: tuple[int | str, ...]  # by label
    image_size_px: Annotated[int, Field(ge=32, le=2048, multiple_of=_MULTIPLE_PX)]  # of the input
    fill_colour_rgb: tuple[Byte, Byte, Byte]  # of the letterbox
    conf: Share
    iou: Share
    max_detections: Some
    max_candidates: Some
    labels: Labels
    generation: str  # the head's type
    config: dict[str, Any]  # the training's whole config
    step: Count  # of the checkpoint
    precision: Literal["fp32", "fp16"]  # of the convolutions
    dynamic_size: bool  # any height and width that are multiples of 32 will do
    nms: bool  # the suppression is inside
    suppression: Suppression = "greedy"  # an ``nms`` inside is always that
    float_input: bool = False  # images are float32, 0..255, and not uint8
    class_conf: tuple[Share, ...] = ()  # by label, the lowest score that counts; empty: not chosen

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
            of_before = {"class_conf": "[]", "suppression": '"greedy"'}  # files have neither
            entries = {_PREFIX + name: value for name, value in of_before.items()} | {**entries}
            names = [field.name for field in fields(cls)]
            content = {name: json.loads(entries[_PREFIX + name]) for name in names}
            version = json.loads(entries[_PREFIX + "version"])
        except (KeyError, ValueError, RecursionError) as error:
            raise UserError(f"{owner}: its metadata is damaged ({error})") from error
        if version != _VERSION:
            raise UserError(f"{owner}: export version {version}; this code reads {_VERSION}")
        metadata = read_record(cls, content, f"{owner}: its metadata")
        if len(metadata.class_names) != len(set(metadata.category_ids)):
            raise UserError(f"{owner}: its metadata has not one category id for each class name")
        if len(metadata.class_conf) not in (0, len(metadata.class_names)):
            raise UserError(f"{owner}: its metadata has not one confidence for each class name")
        return metadata

    def inputs(self) -> Arrays:
        size_px = None if self.dynamic_size else self.image_size_px
        return {"images": ("float" if self.float_input else "uint8", (None, 3, size_px, size_px))}

    def outputs(self, batch: int | None = None, rows: int | None = None) -> Arrays:
        found = {"boxes": ("float", (batch, rows, 4))}
        if not self.nms:
            return {**found, "scores": ("float", (batch, rows, len(self.class_names)))}
        by_row = (batch, rows)
        counted = {"labels": ("int64", by_row), "counts": ("int64", (batch,))}
        return {**found, "scores": ("float", by_row), **counted}


def is_exported(path: Path) -> bool:
    return path.suffix.lower() in (".onnx", ".torchscript")


class ExportedModel(nn.Module):
    """A detector that export.py wrote; an evaluator's network whose output is decoded already.

    ONNX files run by ONNX Runtime, on a GPU where its CUDA build is installed, on as many CPU
    threads as PyTorch uses. A TorchScript file is a program, which could also write files: only
    the export itself opens the one that it has just written.
    """

    batch_size = 1  # worth computing together in prediction

    def __init__(self, path: Path, metadata: ExportMetadata, run: Run) -> None:
        super().__init__()
        self.path, self.metadata, self.run = path, metadata, run
        self.description = f"exported, {metadata.precision}"

    @classmethod
    def open(cls, path: Path) -> ExportedModel:
        if path.suffix.lower() == ".torchscript":
            raise UserError(
                f"{path}: a TorchScript file is a program, which could do anything here; export "
                "the checkpoint with --format onnx, which does all that it does"
            )
        if not is_exported(path):
            raise UserError(f"{path}: must end in .onnx, as export.py writes it")
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        return cls(path, *_open_onnx(path))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores, on the CPU; of a file with the suppression inside, what that has left.

        Images are uint8 (B, 3, H, W), RGB, letterboxed. Boxes are float32 (B, N, 4), xyxy in pixels
        of the images, scores float32 (B, N, K). A size that the file does not take is a UserError.
        """
        if not self.metadata.nms:
            boxes, scores = self._outputs(images)
            return boxes, scores
        found = self.detect(images)
        most = max(map(len, found))
        boxes = torch.zeros(len(found), most, 4)
        scores = torch.full((len(found), most, len(self.metadata.class_names)), -1.0)  # below all
        for i, one in enumerate(found):
            boxes[i, : len(one)] = one.boxes_xyxy_px
            scores[i, torch.arange(len(one)), one.labels] = one.scores
        return boxes, scores

    def detect(self, images: Tensor, postprocess: Postprocess | None = None) -> list[Detections]:
        """Detections of each image, on the CPU, by the metadata's thresholds or others.

        Those of a suppression inside are fixed: other ones, but a higher ``conf``, are a UserError.
        """
        own = self.metadata.postprocess()
        if not self.metadata.nms:
            return (postprocess or own)(*self(images))
        asked = postprocess or own
        if asked.conf < own.conf or replace(asked, conf=own.conf) != own:
            raise UserError(
                f"{self.path}: contains its suppression, with IoU {own.iou:g} and confidences from "
                f"{own.conf:g} on, {own.labels}; ask for these, or export without --nms"
            )
        boxes, scores, labels, counts = self._outputs(images)
        found = [
            Detections(boxes_xyxy_px=boxes[i, :n], scores=scores[i, :n], labels=labels[i, :n])
            for i, n in enumerate(counts.tolist())
        ]
        return [one.above(postprocess.conf) for one in found] if postprocess else found

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
    entries = session.get_modelmeta().custom_metadata_map
    metadata = ExportMetadata.from_metadata(entries, owner=str(path))
    given, named = (
        [(v.name.removeprefix("decoded_"), v.type[len("tensor(") : -1], v.shape) for v in values]
        for values in (session.get_inputs(), session.get_outputs())
    )
    _check_arrays(path, given, metadata.inputs())
    _check_arrays(path, named, metadata.outputs())

    def run(images: Tensor) -> list[Tensor]:
        try:
            outputs = session.run(None, {"images": images.numpy()})
        except Exception as error:  # as above
            raise UserError(f"{path}: ONNX Runtime cannot run it ({_first_line(error)})") from error
        rows = (*outputs[0].shape, 0, 0)[1]
        found = [(*one[:2], each.shape) for one, each in zip(named, outputs, strict=True)]
        _check_arrays(path, found, metadata.outputs(len(images), rows))
        for labels, count in zip(*outputs[2:], strict=True):
            if not 0 <= count <= rows or (labels[:count] // len(metadata.class_names)).any():
                raise UserError(f"{path}: finds classes that it has no name for; export it anew")
        return [torch.from_numpy(output) for output in outputs]

    return metadata, run


def _check_arrays(path: Path, found: Iterable[Array], wanted: Arrays) -> None:
    """Refuse other names, types or lengths than the metadata say; a length in words is any."""
    found, right = list(found), [(name, *array) for name, array in wanted.items()]
    lengths = [(tuple(a[2]), b[2]) for a, b in zip(found, right, strict=False)]
    if [one[:2] for one in found] != [one[:2] for one in right] or any(
        len(shape) != len(own)
        or any(isinstance(a, int) and b not in (None, a) for a, b in zip(shape, own, strict=True))
        for shape, own in lengths
    ):
        describe = [", ".join(f"{n} {k} {tuple(s)}" for n, k, s in all_) for all_ in (found, right)]
        raise UserError(
            f"{path}: its graph has {describe[0][:300]} where its metadata say {describe[1]}; "
            "export the checkpoint anew"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
