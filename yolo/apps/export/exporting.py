"""A checkpoint as an ONNX or TorchScript file that was seen to find what PyTorch finds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from yolo.apps.export import onnx
from yolo.apps.export.check import BOUNDS, Agreement, Reference, check_export
from yolo.apps.export.check_images import check_batches
from yolo.apps.export.torchscript import write_torchscript
from yolo.config import Config
from yolo.errors import UserError
from yolo.evaluate.exported_graph import ExportGraph
from yolo.evaluate.exported_metadata import ExportMetadata
from yolo.evaluate.exported_runner import ExportedModel
from yolo.factory.detector import Coder, build_coder
from yolo.factory.trained_weights import load_detector, read_config
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.models.detector import Detector
from yolo.train.checkpoint import load_checkpoint

Log = Callable[[str], None]
"""Prints lines."""


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A checkpoint's detector.

    Attributes:
        path, checkpoint: the file and its content.
        config: the checkpoint's.
        detector, coder: in evaluation mode, on the CPU.
    """

    path: Path
    checkpoint: dict[str, Any]
    config: Config
    detector: Detector
    coder: Coder


def export_onnx(
    checkpoint_path: Path,
    *,
    output: Path | None = None,
    image_size_px: int | None = None,
    dynamic_size: bool = False,
    nms: bool = False,
    float_input: bool = False,
    fp16: bool = False,
    conf: float | None = None,
    iou: float | None = None,
    images: Path | None = None,
    log: Log = print,
) -> Path:
    """Write a checkpoint's detector as an ONNX file, or refuse to.

    The input ``images`` is (B, 3, H, W), RGB, letterboxed with the colour of the metadata. The
    outputs are ``boxes`` float32 (B, N, 4), xyxy in pixels of the input, and ``scores`` float32
    (B, N, K); with ``nms`` those of `suppression`. The file appears under its name only
    once ONNX Runtime found with it what PyTorch finds without it: see ``check_export``.

    Args:
        checkpoint_path: the checkpoint; its averaged weights are taken if it has some.
        output: where to; None for the checkpoint's name with ``.onnx``.
        image_size_px: side of the input; None for the training's.
        dynamic_size: take any height and width that are multiples of 32.
        nms: put the suppression inside.
        float_input: images are float32, 0..255, instead of uint8.
        fp16: convolutions in float16.
        conf, iou: of the suppression; None for those of the checkpoint's evaluation.
        images: a folder of images for the check; None draws some.
        say: prints lines.

    Returns:
        The file.

    Raises:
        UserError: the checkpoint or an image cannot be read, a package is missing, the model does
            not allow what was asked for, or the file does not find what PyTorch finds.
    """
    trained = _read(checkpoint_path)
    path = _place(checkpoint_path, output, ".onnx")
    metadata = _metadata(trained, image_size_px, conf, iou, dynamic_size=dynamic_size)
    metadata = replace(
        metadata, nms=nms, float_input=float_input, precision="fp16" if fp16 else metadata.precision
    )
    batches = check_batches(images, _sizes_hw(metadata))
    with _unfinished(path) as temporary:
        plain = replace(metadata, nms=False)
        model = onnx.trace(_graph(trained, metadata), metadata)
        onnx.write_onnx(temporary, model, plain)
        before = after = ExportedModel.open(temporary)
        if nms:
            onnx.write_onnx(temporary, onnx.suppress(model, metadata), metadata)
            after = ExportedModel.open(temporary)
        agreement = _check(trained, batches, before, after)
    log(_told(path, metadata, agreement))
    return path


def export_torchscript(
    checkpoint_path: Path,
    *,
    output: Path | None = None,
    image_size_px: int | None = None,
    dynamic_size: bool = False,
    float_input: bool = False,
    fp16: bool = False,
    images: Path | None = None,
    log: Log = print,
) -> Path:
    """Write a checkpoint's detector as a TorchScript file, or refuse to.

    Like ``export_onnx``, with the same input and outputs and the same check; without suppression.
    """
    trained = _read(checkpoint_path)
    path = _place(checkpoint_path, output, ".torchscript")
    metadata = _metadata(trained, image_size_px, dynamic_size=dynamic_size)
    metadata = replace(
        metadata, float_input=float_input, precision="fp16" if fp16 else metadata.precision
    )
    batches = check_batches(images, _sizes_hw(metadata))
    with _unfinished(path) as temporary:
        write_torchscript(temporary, _graph(trained, metadata), metadata)
        model = ExportedModel.open(temporary)
        agreement = _check(trained, batches, model, model)
    log(_told(path, metadata, agreement))
    return path


def _read(path: Path) -> _Trained:
    checkpoint = load_checkpoint(path)
    config = read_config(path, checkpoint)
    if not isinstance(config, Config):
        raise UserError(f"{path}: holds a classifier, and only detectors can be exported")
    return _Trained(
        path=path,
        checkpoint=checkpoint,
        config=config,
        detector=load_detector(path, checkpoint, config),
        coder=build_coder(config).eval(),
    )


def _place(checkpoint_path: Path, output: Path | None, suffix: str) -> Path:
    path = output or checkpoint_path.with_suffix(suffix)
    if path.suffix != suffix:
        raise UserError(f"--output {path}: must end in {suffix}")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}; make it first")
    return path


def _metadata(
    trained: _Trained,
    image_size_px: int | None,
    conf: float | None = None,
    iou: float | None = None,
    *,
    dynamic_size: bool,
) -> ExportMetadata:
    """Of a plain export in fp32.

    Raises:
        UserError: a YOLOv1 is asked for another size than its own.
    """
    config, evaluation = trained.config, trained.config.evaluation
    size_px = image_size_px or config.data.image_size
    if config.model.head.type == "yolov1" and (dynamic_size or size_px != config.data.image_size):
        raise UserError(
            f"{trained.path}: the end of a YOLOv1 works at the {config.data.image_size} px alone "
            f"that it was trained at; leave out --dynamic-size and --image-size"
        )
    return ExportMetadata(
        class_names=tuple(trained.checkpoint["class_names"]),
        category_ids=tuple(trained.checkpoint["category_ids"]),
        image_size_px=size_px,
        fill_colour_rgb=FILL_COLOUR_RGB,
        conf=evaluation.conf if conf is None else conf,
        iou=evaluation.iou if iou is None else iou,
        max_detections=evaluation.max_detections,
        max_candidates=evaluation.max_candidates,
        labels=evaluation.labels,
        generation=config.model.head.type,
        config=dict(trained.checkpoint["config"]),
        step=trained.checkpoint["progress"]["step"],
        precision="fp32",
        dynamic_size=dynamic_size,
        nms=False,
    )


def _graph(trained: _Trained, metadata: ExportMetadata) -> ExportGraph:
    return ExportGraph(trained.detector, trained.coder, precision=metadata.precision)


def _sizes_hw(metadata: ExportMetadata) -> list[tuple[int, int]]:
    """The file's own size, and where others are promised a larger one that is no square."""
    size_px = metadata.image_size_px
    others = [(size_px + 32, size_px + 96)] if metadata.dynamic_size else []
    return [(size_px, size_px), *others]


def _check(
    trained: _Trained, batches: list[Tensor], before: ExportedModel, after: ExportedModel
) -> Agreement:
    """Compare a file, before and behind its suppression, with the detector as it was trained."""
    metadata = after.metadata
    try:
        return check_export(
            batches,
            reference=Reference(trained.detector, trained.coder),
            decode=before,
            detect=after.detect,
            postprocess=metadata.postprocess(),
            bounds=BOUNDS[metadata.precision],
        )
    except UserError as error:
        way = "; without --fp16 the differences are smaller" if metadata.precision == "fp16" else ""
        raise UserError(
            f"{trained.path}: the export is refused, for it does not find what PyTorch finds: "
            f"{error}{way}"
        ) from error


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder; becomes ``path`` at the end, or vanishes."""
    temporary = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or name another "
            "--output"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _told(path: Path, metadata: ExportMetadata, agreement: Agreement) -> str:
    size = f"{metadata.image_size_px} px" + (" and other sizes" if metadata.dynamic_size else "")
    return (
        f"{path.name}: {metadata.generation}, {metadata.precision}, {size}; "
        f"on {agreement.images} images boxes differ from PyTorch's "
        f"by at most {agreement.box_px:.2g} px and scores by "
        f"{agreement.score:.2g}; {agreement.detections} detections agree"
    )
