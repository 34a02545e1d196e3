"""A detector as an ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from yolo.apps.export.suppression import DECODED, add_suppression
from yolo.errors import UserError
from yolo.evaluate.exported_graph import ExportGraph, example_images
from yolo.evaluate.exported_metadata import ExportMetadata
from yolo.evaluate.optional_packages import need

OPSET = 18
"""The oldest that torch's exporter writes without converting; ONNX Runtime knows it from 1.14."""

LARGEST_BYTES = 2**31 - 1
"""Of one ONNX file, which is one protocol buffer."""


def trace(graph: ExportGraph, metadata: ExportMetadata) -> Any:
    """The graph as an ``onnx.ModelProto`` with the metadata, before any suppression.

    Its input is ``images``; its outputs are ``boxes`` and ``scores``, or ``DECODED`` where a
    suppression will follow.

    Raises:
        UserError: a package is missing, or the network is too large for one file.
    """
    for package in ("onnx", "onnxscript"):
        need(package)
    weights_bytes = sum(t.nbytes for t in graph.state_dict().values())
    if weights_bytes > LARGEST_BYTES:
        raise UserError(
            f"the network's weights take {weights_bytes / 1e9:.1f} GB, and an ONNX file holds 2; "
            "export with --fp16"
        )
    names = DECODED if metadata.nms else ("boxes", "scores")
    dimensions: dict[int, Any] = {0: Dim("batch")}
    if metadata.dynamic_size:
        dimensions |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            graph,
            (example_images(metadata.image_size_px, float_input=metadata.float_input),),
            dynamo=True,
            input_names=["images"],
            output_names=list(names),
            dynamic_shapes=(dimensions,),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_dimensions(model, metadata)
    return model


def suppress(model: Any, metadata: ExportMetadata) -> Any:
    """The same model with the suppression behind it; see ``add_suppression``."""
    add_suppression(model, metadata.postprocess())
    return model


def write_onnx(path: Path, model: Any, metadata: ExportMetadata) -> None:
    """Check the model by ONNX's own rules and write it with its metadata."""
    onnx = need("onnx")
    onnx.helper.set_model_props(model, metadata.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _name_dimensions(model: Any, metadata: ExportMetadata) -> None:
    """Plain names instead of formulas such as ``63*((s14//32))*((s54//32))``."""
    (images,) = model.graph.input
    axes = images.type.tensor_type.shape.dim
    if metadata.dynamic_size:
        axes[2].dim_param, axes[3].dim_param = "height", "width"
        for output in model.graph.output:
            output.type.tensor_type.shape.dim[1].dim_param = "candidates"
        del model.graph.value_info[:]  # shapes within, in terms of the old names


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its progress and of what it will do differently one day."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
