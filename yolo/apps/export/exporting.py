"""A checkpoint as an ONNX or TorchScript file that was seen to find what PyTorch finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from yolo.apps.export import graph as graphs
from yolo.apps.export.check import Disagreement, check_batches, check_export
from yolo.config.load import portable
from yolo.detection.postprocess import Labels
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel, ExportMetadata
from yolo.factory.detector import Coder, build_coder, build_postprocess, check_yolov1_size
from yolo.factory.initial_weights import load_trained_detector
from yolo.files import output_path
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.models.detector import Detector


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
    labels: Labels | None = None,
    images: Path | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Write a checkpoint's detector as a file with the suffix, or refuse to. Returns its path.

    The suffix is ``.onnx`` or ``.torchscript``. The input ``images`` is (B, 3, H, W), RGB,
    letterboxed with the colour of the metadata. The outputs are ``boxes`` float32 (B, N, 4), xyxy
    in pixels of the input, and ``scores`` float32 (B, N, K); with ``nms``, which only ONNX can
    have, those of ``add_suppression``. The file appears at ``output`` (None: beside the checkpoint)
    once it finds in the folder ``images`` (None: in drawn ones) what PyTorch finds, see
    ``check_export``. ``image_size_px``, ``conf``, ``iou`` and ``labels`` are None for the
    training's; the other options are those of ``ExportMetadata``.
    """
    assert suffix == ".onnx" or not nms
    checkpoint, config, detector = load_trained_detector(checkpoint_path)
    size_px = image_size_px or config.data.image_size
    advice = "; leave out --dynamic-size and --image-size"
    check_yolov1_size(checkpoint_path, config, None if dynamic_size else size_px, advice)
    given = {"conf": conf, "iou": iou, "labels": labels}
    given = {name: value for name, value in given.items() if value is not None}
    metadata = ExportMetadata(
        class_names=tuple(checkpoint["class_names"]),
        category_ids=tuple(checkpoint["category_ids"]),
        image_size_px=size_px,
        fill_colour_rgb=FILL_COLOUR_RGB,
        **(asdict(build_postprocess(config)) | given),
        generation=config.model.head.type,
        config=portable(config.model_dump()),
        step=checkpoint["progress"]["step"],
        precision="fp16" if fp16 else "fp32",
        dynamic_size=dynamic_size,
        nms=nms,
        float_input=float_input,
        class_conf=tuple(checkpoint.get("class_conf", ())),
    )
    if nms and metadata.suppression != "greedy":
        raise UserError(
            f"{checkpoint_path}: evaluation.nms is soft, ONNX's is not; leave out --nms"
        )
    path = output or checkpoint_path.with_suffix(suffix)
    if path.suffix != suffix:
        raise UserError(f"--output {path}: must end in {suffix}")
    try:
        agreement = _write_checked(path, detector, build_coder(config).eval(), metadata, images)
    except Disagreement as error:
        way = "; without --fp16 the differences are smaller" if fp16 else ""
        raise UserError(
            f"{checkpoint_path}: the export is refused, for it does not find what PyTorch finds: "
            f"{error}{way}"
        ) from error
    sizes = f"{size_px} px" + (" and other sizes" if dynamic_size else "")
    log(f"{path.name}: {metadata.generation}, {metadata.precision}, {sizes}; {agreement}")
    return path


def _write_checked(
    path: Path, detector: Detector, coder: Coder, metadata: ExportMetadata, images: Path | None
) -> str:
    """Write a file under a temporary name, check it, and rename it."""
    size_px = metadata.image_size_px
    # where other sizes are promised, a larger one that is no square too
    others = [(size_px + 32, size_px + 96)] if metadata.dynamic_size else []
    batches = check_batches(images, [(size_px, size_px), *others])
    with exported_file(path) as temporary:
        graph = graphs.ExportGraph(detector, coder, half=metadata.precision == "fp16")
        models = _write(temporary, graph, metadata)
        return check_export(batches, nn.Sequential(detector, coder), metadata, *models)


def _write(
    path: Path, graph: graphs.ExportGraph, metadata: ExportMetadata
) -> tuple[ExportedModel, ExportedModel]:
    """Write a file of either kind. Returns it opened, before its suppression and as it is."""
    if path.suffix == ".torchscript":
        graphs.write_torchscript(path, graph, metadata)
        return 2 * (graphs.open_torchscript(path),)
    model = graphs.trace_onnx(graph, metadata)
    graphs.write_onnx(path, model, replace(metadata, nms=False))
    before = ExportedModel.open(path)
    if not metadata.nms:
        return before, before
    graphs.add_suppression(model, metadata.postprocess())
    graphs.write_onnx(path, model, metadata)
    return before, ExportedModel.open(path)


@contextmanager
def exported_file(path: Path) -> Iterator[Path]:
    """`output_path`, with a sentence for a full disk or a lost permission."""
    try:
        with output_path(path) as temporary:
            yield temporary
    except OSError as error:
        why = error.strerror or error
        advice = "make room, or name another --output"
        raise UserError(f"{path}: cannot be written ({why}); {advice}") from error
