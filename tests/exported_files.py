"""ONNX files as export.py might have written them, or as somebody who means harm does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.detectors import make_config
from yolo.evaluate.exported import ExportMetadata, need

METADATA = ExportMetadata(
    class_names=("cat", "dog", "cow"),
    category_ids=(1, 2, 3),
    image_size_px=64,
    fill_colour_rgb=(124, 116, 104),
    conf=0.1,
    iou=0.45,
    max_detections=300,
    max_candidates=4096,
    labels="best_class",
    generation="yolov3",
    config=make_config().model_dump(mode="json"),
    step=7,
    precision="fp32",
    dynamic_size=False,
    nms=False,
)

IMAGES = "uint8[batch, 3, 64, 64] images"
OUTPUTS = "float[batch, 2, 4] boxes, float[batch, 2, 3] scores"
SUPPRESSED = (
    "float[batch, 2, 4] boxes, float[batch, 2] scores, int64[batch, 2] labels, int64[batch] counts"
)

_GRAPH = """<ir_version: 8, opset_import: ["": 18]>
detector ({images}) => ({outputs})
<int64[1] zero = {{0}}, int64[1] one = {{1}}, float half = {{0.5}}, int64 found = {{{label}}},
 int64[2] box = {{2, 4}}, int64[{rank}] score = {{{score}}}, int64[1] rows = {{2}}>
{{
  shape = Shape(images)
  n = Slice(shape, zero, one)
  of_boxes = Concat <axis = 0> (n, box)
  boxes = Expand(half, of_boxes)
  of_scores = Concat <axis = 0> (n, score)
  scores = Expand(half, of_scores)
  of_labels = Concat <axis = 0> (n, rows)
  labels = Expand(found, of_labels)
  counts = Expand(rows, n)
}}"""


def write_onnx(
    path: Path,
    *,
    images: str = IMAGES,
    outputs: str | None = None,
    label: int = 0,
    entries: dict[str, str] | None = None,
    **changes: Any,
) -> Path:
    """Two boxes with the score 0.5 in every image.

    ``changes`` replace attributes of METADATA, ``entries`` what is written of them.
    """
    onnx, metadata = need("onnx"), replace(METADATA, **changes)
    own, score, rank = (SUPPRESSED, "2", 1) if metadata.nms else (OUTPUTS, "2, 3", 2)
    text = _GRAPH.format(images=images, outputs=outputs or own, label=label, score=score, rank=rank)
    model = onnx.parser.parse_model(text)
    onnx.helper.set_model_props(model, metadata.to_metadata() | (entries or {}))
    path.write_bytes(model.SerializeToString())
    return path
