"""What is exported, images in, boxes and scores out, as one module; as TorchScript and as ONNX.

ONNX may have the non-maximum suppression inside.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.jit import TracerWarning

from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel, ExportMetadata, need
from yolo.models.detector import Detector
from yolo.models.fusing import fuse

METADATA_FILE = "card.json"
"""The metadata's place among the extra files of a TorchScript file."""


class ExportGraph(nn.Module):
    """Normalisation, fused network and decoding; the ``detector`` is left as it is.

    With ``half`` the convolutions and their weights are float16; the normalisation before them and
    the decoding behind them stay float32, for float16 knows no fractions of pixels beyond 1024.
    """

    def __init__(self, detector: Detector, coder: nn.Module, *, half: bool) -> None:
        super().__init__()
        detector = fuse(detector)
        self.normalise = detector.normalise
        self.dtype = torch.float16 if half else torch.float32
        layers = (detector.encoder, detector.neck, detector.head)
        self.encoder, self.neck, self.head = (layer.to(self.dtype) for layer in layers)
        self.coder = copy.deepcopy(coder)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 or float32 (B, 3, H, W), RGB, 0..255 -> boxes and scores, both float32.

        Boxes are (B, N, 4), xyxy in pixels of the images, scores (B, N, K).
        """
        pixels = self.normalise(images).to(self.dtype)
        return self.coder(self.head(self.neck(self.encoder(pixels))))


def _example_images(metadata: ExportMetadata) -> Tensor:
    """Two images of noise to trace with: one alone would be taken for a constant batch."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, metadata.image_size_px, metadata.image_size_px)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return images.float() if metadata.float_input else images


def write_torchscript(path: Path, graph: ExportGraph, metadata: ExportMetadata) -> None:
    """Trace the graph and write it with its metadata.

    Sizes of images are read from them, so the file itself takes any that the network takes; whether
    that was checked is what ``metadata.dynamic_size`` records.
    """
    entries = {METADATA_FILE: json.dumps(metadata.to_metadata())}
    with warnings.catch_warnings(), torch.inference_mode():
        # the checks of a YOLOv1's sizes become constants, which is what they are
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", FutureWarning)  # torch would have torch.export instead
        traced = torch.jit.trace(graph, (_example_images(metadata),), check_trace=False)
        torch.jit.save(traced, path, _extra_files=entries)


def open_torchscript(path: Path) -> ExportedModel:
    """What ``write_torchscript`` has just written, on the CPU; another's file could do harm."""
    extra = {METADATA_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        module = torch.jit.load(path, map_location="cpu", _extra_files=extra).eval()
    entries = json.loads(extra[METADATA_FILE])
    run = torch.inference_mode()(lambda images: list(module(images)))
    return ExportedModel(path, ExportMetadata.from_metadata(entries, owner=str(path)), run)


def trace_onnx(graph: ExportGraph, metadata: ExportMetadata) -> Any:
    """The graph as an ``onnx.ModelProto``, before any suppression.

    Its input is ``images``; its outputs are ``boxes`` and ``scores``, or ``decoded_boxes`` and
    ``decoded_scores`` where a suppression will follow.
    """
    for package in ("onnx", "onnxscript"):
        need(package)
    weights_bytes = sum(t.nbytes for t in graph.state_dict().values())
    if weights_bytes > 2**31 - 1:  # of one protocol buffer, which the file is
        raise UserError(
            f"the network's weights take {weights_bytes / 1e9:.1f} GB, and an ONNX file holds 2; "
            "export with --fp16"
        )
    dimensions: dict[int, Any] = {0: Dim("batch")}
    if metadata.dynamic_size:
        dimensions |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    prefix = "decoded_" if metadata.nms else ""
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            graph,
            (_example_images(metadata),),
            dynamo=True,
            input_names=["images"],
            output_names=[f"{prefix}boxes", f"{prefix}scores"],
            dynamic_shapes=(dimensions,),
            opset_version=18,  # the oldest that is not converted; ONNX Runtime has it from 1.14
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the lines of code that called it, in files of this machine
    if metadata.dynamic_size:  # plain names instead of formulas: 63*((s14//32))*((s54//32))
        (images,) = model.graph.input
        axes = images.type.tensor_type.shape.dim
        axes[2].dim_param, axes[3].dim_param = "height", "width"
        for output in model.graph.output:
            output.type.tensor_type.shape.dim[1].dim_param = "candidates"
        del model.graph.value_info[:]  # shapes within, in terms of the old names
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and what it will do differently one day."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def write_onnx(path: Path, model: Any, metadata: ExportMetadata) -> None:
    """Check the model by ONNX's own rules and write it with its metadata."""
    onnx = need("onnx")
    onnx.helper.set_model_props(model, metadata.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def add_suppression(model: Any, postprocess: Postprocess) -> None:
    """Append the suppression to a model with the ``decoded_`` outputs, in place.

    The outputs become ``boxes`` float32 (B, D, 4), ``scores`` float32 (B, D), ``labels`` int64
    (B, D) and ``counts`` int64 (B,): the first ``counts[b]`` rows of image b are its detections,
    the best first, and the rest are zeros with the label -1. D is ``max_detections``, or less where
    an image has fewer candidates.

    It is ``Postprocess`` up to rounding: ONNX's NonMaxSuppression takes each class for itself
    instead of moving the classes apart, and computes overlaps in float32, where ``Postprocess``
    has float64.
    """
    compose, types = need("onnx").compose, need("onnxscript")
    batch, rows = "batch", "detections"
    suppression = _suppression(postprocess).to_model_proto(
        input_types=[types.FLOAT[batch, "N", 4], types.FLOAT[batch, "N", "K"]],
        output_types=[
            types.FLOAT[batch, rows, 4],
            types.FLOAT[batch, rows],
            types.INT64[batch, rows],
            types.INT64[batch],
        ],
    )
    graph = compose.add_prefix_graph(
        suppression.graph, "suppression_", rename_inputs=False, rename_outputs=False
    )
    model.graph.node.extend(graph.node)
    del model.graph.output[:]
    model.graph.output.extend(graph.output)


def _suppression(postprocess: Postprocess) -> Any:
    """Only ONNX's standard operators, which every runtime has; onnxscript translates the code."""
    onnxscript = need("onnxscript")
    op = onnxscript.opset18
    # onnxscript makes constants of these: numbers of shape (), lists of shape (n,)
    conf = postprocess.conf
    nobody, somebody = -1.0, -0.5  # a score of 0 takes part where `conf` is 0
    iou, passing = [postprocess.iou], [somebody]
    most, candidates = [postprocess.max_detections], [postprocess.max_candidates]
    all_classes = postprocess.labels == "all_classes"

    @onnxscript.script(default_opset=op)
    def suppress(decoded_boxes, decoded_scores):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        classes = op.Shape(decoded_scores, start=2, end=3)
        if all_classes:
            best = op.Reshape(decoded_scores, [0, -1])  # (B, N * K)
        else:
            best = op.ReduceMax(decoded_scores, [2], keepdims=0)  # (B, N)
        best = op.Where(op.IsNaN(best), nobody, best)
        best, place = op.TopK(best, op.Min(candidates, op.Shape(best, start=1, end=2)))  # (B, M)
        if all_classes:
            label = op.Mod(place, classes)
            place = op.Div(place, classes)
        else:
            label = op.GatherElements(op.ArgMax(decoded_scores, axis=2, keepdims=0), place, axis=1)
        rows = op.GatherND(decoded_boxes, op.Unsqueeze(place, [2]), batch_dims=1)  # (B, M, 4)

        every = op.Unsqueeze(op.Range(0, op.Squeeze(classes), 1), [0, 2])  # (1, K, 1)
        mine = op.Equal(op.Unsqueeze(label, [1]), every)  # (B, K, M)
        mine = op.And(mine, op.Unsqueeze(op.GreaterOrEqual(best, conf), [1]))
        by_class = op.Where(mine, op.Unsqueeze(best, [1]), nobody)
        chosen = op.NonMaxSuppression(rows, by_class, most, iou, passing)  # (S, 3)
        at = op.Gather(chosen, [0, 2], axis=1)  # (S, 2): image, candidate
        empty = op.Expand(nobody, op.Shape(best))
        kept = op.ScatterND(empty, at, op.GatherND(best, at))  # (B, M), nobody elsewhere

        best, place = op.TopK(kept, op.Min(most, op.Shape(kept, start=1, end=2)))  # (B, D)
        found = op.Greater(best, somebody)
        rows = op.GatherND(rows, op.Unsqueeze(place, [2]), batch_dims=1)  # (B, D, 4)
        boxes = op.Where(op.Unsqueeze(found, [2]), rows, 0.0)
        scores = op.Where(found, best, 0.0)
        labels = op.Where(found, op.GatherElements(label, place, axis=1), -1)
        counts = op.ReduceSum(op.Cast(found, to=7), [1], keepdims=0)  # 7 is int64
        return boxes, scores, labels, counts

    return suppress
