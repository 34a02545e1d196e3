"""A checkpoint as an ONNX or TorchScript file that was seen to find what PyTorch finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from yolo.apps.export import graph as graphs
from yolo.apps.export.check import BOUNDS, Agreement, Disagreement, check_batches, check_export
from yolo.config import Config
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel, ExportMetadata
from yolo.factory.detector import build_coder, check_yolov1_size
from yolo.factory.weights import load_detector, read_config
from yolo.files import atomic_path
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.models.detector import Detector
from yolo.train.checkpoint import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A checkpoint's content, its config, and its detector in evaluation mode on the CPU."""

    path: Path
    checkpoint: dict[str, Any]
    config: Config
    detector: Detector


def load_trained_detector(path: Path) -> Trained:
    """Read a checkpoint for exporting; its averaged weights are taken if it has some.

    Raises:
        UserError: it cannot be read, or holds a classifier.
    """
    checkpoint = load_checkpoint(path)
    config = read_config(path, checkpoint)
    if not isinstance(config, Config):
        raise UserError(f"{path}: holds a classifier, and only detectors can be exported")
    detector = load_detector(path, checkpoint, config)
    return Trained(path=path, checkpoint=checkpoint, config=config, detector=detector)


def export_model(
    checkpoint_path: Path,
    suffix: str,
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
    log: Callable[[str], None] = print,
) -> Path:
    """Write a checkpoint's detector as a file with the suffix, or refuse to. Returns its path.

    The suffix is ``.onnx`` or ``.torchscript``. The input ``images`` is (B, 3, H, W), RGB,
    letterboxed with the colour of the metadata. The outputs are ``boxes`` float32 (B, N, 4), xyxy
    in pixels of the input, and ``scores`` float32 (B, N, K); with ``nms``, which only ONNX can
    have, those of ``add_suppression``. The file appears at ``output`` (None: beside the checkpoint)
    once it finds in the folder ``images`` (None: in drawn ones) what PyTorch finds, see
    ``check_export``. ``image_size_px``, ``conf`` and ``iou`` are None for the training's; the other
    options are those of ``ExportMetadata``.
    """
    assert suffix == ".onnx" or not nms
    trained = load_trained_detector(checkpoint_path)
    metadata = _metadata(trained, image_size_px, dynamic_size)
    metadata = replace(
        metadata,
        precision="fp16" if fp16 else "fp32",
        nms=nms,
        float_input=float_input,
        conf=metadata.conf if conf is None else conf,
        iou=metadata.iou if iou is None else iou,
    )
    path = output or checkpoint_path.with_suffix(suffix)
    if path.suffix != suffix:
        raise UserError(f"--output {path}: must end in {suffix}")
    agreement = _write_checked(trained, metadata, path, images)
    log(_summary(path, metadata, agreement))
    return path


def _metadata(trained: Trained, image_size_px: int | None, dynamic_size: bool) -> ExportMetadata:
    """Of a file without suppression, in fp32, that takes uint8."""
    config, evaluation = trained.config, trained.config.evaluation
    size_px = image_size_px or config.data.image_size
    advice = "; leave out --dynamic-size and --image-size"
    check_yolov1_size(trained.path, config, None if dynamic_size else size_px, advice)
    return ExportMetadata(
        class_names=tuple(trained.checkpoint["class_names"]),
        category_ids=tuple(trained.checkpoint["category_ids"]),
        image_size_px=size_px,
        fill_colour_rgb=FILL_COLOUR_RGB,
        conf=evaluation.conf,
        iou=evaluation.iou,
        max_detections=evaluation.max_detections,
        max_candidates=evaluation.max_candidates,
        labels=evaluation.labels,
        generation=config.model.head.type,
        config=dict(trained.checkpoint["config"]),
        step=trained.checkpoint["progress"]["step"],
        precision="fp32",
        dynamic_size=dynamic_size,
        nms=False,
        float_input=False,
    )


def _write_checked(
    trained: Trained, metadata: ExportMetadata, path: Path, images: Path | None
) -> Agreement:
    """Write a file under a temporary name, check it, and rename it."""
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}; make it first")
    size_px, half = metadata.image_size_px, metadata.precision == "fp16"
    # where other sizes are promised, a larger one that is no square too
    others = [(size_px + 32, size_px + 96)] if metadata.dynamic_size else []
    batches = check_batches(images, [(size_px, size_px), *others])
    coder = build_coder(trained.config).eval()
    try:
        with atomic_path(path) as temporary:
            graph = graphs.ExportGraph(trained.detector, coder, half=half)
            before, after = _write(temporary, graph, metadata)
            return check_export(
                batches,
                reference=nn.Sequential(trained.detector, coder),
                decode=before,
                detect=after.detect,
                postprocess=metadata.postprocess(),
                bounds=BOUNDS[metadata.precision],
            )
    except Disagreement as error:
        way = "; without --fp16 the differences are smaller" if half else ""
        raise UserError(
            f"{trained.path}: the export is refused, for it does not find what PyTorch finds: "
            f"{error}{way}"
        ) from error
    except OSError as error:
        raise cannot_be_written(path, error) from error


def _write(
    path: Path, graph: graphs.ExportGraph, metadata: ExportMetadata
) -> tuple[ExportedModel, ExportedModel]:
    """Write a file of either kind. Returns it opened, before its suppression and as it is."""
    if path.suffix == ".torchscript":
        graphs.write_torchscript(path, graph, metadata)
    else:
        model = graphs.trace_onnx(graph, metadata)
        graphs.write_onnx(path, model, replace(metadata, nms=False))
    before = ExportedModel.open(path)
    if not metadata.nms:
        return before, before
    graphs.add_suppression(model, metadata.postprocess())
    graphs.write_onnx(path, model, metadata)
    return before, ExportedModel.open(path)


def cannot_be_written(path: Path, error: OSError) -> UserError:
    """A full disk or a lost permission, in a sentence."""
    why = error.strerror or error
    return UserError(f"{path}: cannot be written ({why}); make room, or name another --output")


def _summary(path: Path, metadata: ExportMetadata, agreement: Agreement) -> str:
    size = f"{metadata.image_size_px} px" + (" and other sizes" if metadata.dynamic_size else "")
    return (
        f"{path.name}: {metadata.generation}, {metadata.precision}, {size}; "
        f"on {agreement.images} images boxes differ from PyTorch's by at most "
        f"{agreement.box_px:.2g} px and scores by {agreement.score:.2g}; "
        f"{agreement.detections} detections agree"
    )
