"""Non-maximum suppression as ONNX's own operators, which every runtime of ONNX has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolo.detection.postprocess import Postprocess
from yolo.evaluate.optional_packages import need

DECODED = ("decoded_boxes", "decoded_scores")
"""What the suppression reads: (B, N, 4) and (B, N, K)."""

OUTPUTS = ("boxes", "scores", "labels", "counts")
"""What it gives, see ``add_suppression``."""

NOBODY = -1.0
"""The score of what does not take part; a score of 0 does where ``conf`` is 0."""


def add_suppression(model: Any, postprocess: Postprocess) -> None:
    """Append the suppression to an ONNX model whose outputs are ``DECODED``, in place.

    The outputs become ``boxes`` float32 (B, D, 4), ``scores`` float32 (B, D), ``labels`` int64
    (B, D) and ``counts`` int64 (B,): the first ``counts[b]`` rows of image b are its detections,
    the best first, and the rest are zeros with the label -1. D is ``max_detections``, or less where
    an image has fewer candidates.

    It is ``Postprocess`` up to rounding: ONNX's NonMaxSuppression takes each class for itself
    instead of moving the classes apart, and computes overlaps in float32, where ``Postprocess``
    has float64.
    """
    nodes = _Nodes(model)
    boxes, best, label = _candidates(nodes, postprocess)
    kept = _keep(nodes, boxes, best, label, postprocess)  # (B, M), NOBODY for what is suppressed
    count = nodes.minimum(postprocess.max_detections, nodes.length(kept, axis=1))
    scores, place = nodes.top(kept, count)  # (B, D)
    found = nodes.add("Greater", scores, nodes.number(NOBODY / 2))
    found3 = nodes.add("Unsqueeze", found, nodes.integers(2))  # (B, D, 1)
    rows = nodes.rows(boxes, place)  # (B, D, 4)
    labels = nodes.add("GatherElements", label, place, axis=1)
    nodes.add("Where", found3, rows, nodes.number(0), output="boxes")
    nodes.add("Where", found, scores, nodes.number(0), output="scores")
    nodes.add("Where", found, labels, nodes.integer(-1), output="labels")
    ones = nodes.add("Cast", found, to=nodes.int64)
    nodes.add("ReduceSum", ones, nodes.integers(1), keepdims=0, output="counts")
    nodes.finish(outputs=OUTPUTS)


def _candidates(nodes: _Nodes, postprocess: Postprocess) -> tuple[str, str, str]:
    """The best of each image: boxes (B, M, 4), scores (B, M), labels (B, M)."""
    boxes, scores = DECODED
    if postprocess.labels == "all_classes":
        best = nodes.add("Reshape", scores, nodes.integers(0, -1))  # (B, N, K) -> (B, N * K)
    else:
        best = nodes.add("ReduceMax", scores, nodes.integers(2), keepdims=0)  # (B, N)
    best = nodes.add("Where", nodes.add("IsNaN", best), nodes.number(NOBODY), best)
    count = nodes.minimum(postprocess.max_candidates, nodes.length(best, axis=1))
    best, place = nodes.top(best, count)  # (B, M)
    if postprocess.labels == "all_classes":
        classes = nodes.length(scores, axis=2)
        label = nodes.add("Mod", place, classes)
        place = nodes.add("Div", place, classes)
    else:
        label = nodes.add("ArgMax", scores, axis=2, keepdims=0)  # (B, N)
        label = nodes.add("GatherElements", label, place, axis=1)
    return nodes.rows(boxes, place), best, label


def _keep(nodes: _Nodes, boxes: str, best: str, label: str, postprocess: Postprocess) -> str:
    """The scores (B, M) of what survives, ``NOBODY`` elsewhere."""
    passing = nodes.add("GreaterOrEqual", best, nodes.number(postprocess.conf))
    classes = nodes.length(DECODED[1], axis=2)
    first, step = nodes.integer(0), nodes.integer(1)
    every = nodes.add("Range", first, nodes.add("Squeeze", classes), step)  # (K,)
    every = nodes.add("Unsqueeze", every, nodes.integers(0, 2))  # (1, K, 1)
    one = nodes.integers(1)
    mine = nodes.add("Equal", nodes.add("Unsqueeze", label, one), every)  # (B, K, M)
    mine = nodes.add("And", mine, nodes.add("Unsqueeze", passing, one))
    by_class = nodes.add("Where", mine, nodes.add("Unsqueeze", best, one), nodes.number(NOBODY))
    chosen = nodes.add(
        "NonMaxSuppression",
        boxes,
        by_class,
        nodes.integers(postprocess.max_detections),
        nodes.numbers(postprocess.iou),
        nodes.numbers(NOBODY / 2),
    )  # (S, 3): image, class, candidate
    at = nodes.add("Gather", chosen, nodes.integers(0, 2), axis=1)  # (S, 2)
    empty = nodes.add("Expand", nodes.number(NOBODY), nodes.add("Shape", best))
    return nodes.add("ScatterND", empty, at, nodes.add("GatherND", best, at))


class _Nodes:
    """Nodes to be appended to a model; each has one output, named after its operator."""

    def __init__(self, model: Any) -> None:
        self._onnx = need("onnx")
        self._model = model
        self._number = 0
        self.int64 = self._onnx.TensorProto.INT64

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: int) -> str:
        """Append a node. Returns the name of its output."""
        output = output or self._name(operator)
        self._append(operator, inputs, (output,), attributes)
        return output

    def top(self, values: str, count: str) -> tuple[str, str]:
        """The largest (B, count) of (B, M), descending, and their places."""
        outputs = self._name("top"), self._name("place")
        self._append("TopK", (values, count), outputs, {"axis": 1})
        return outputs

    def rows(self, table: str, place: str) -> str:
        """Rows of each image's own table: (B, M, 4) at (B, D) -> (B, D, 4)."""
        places = self.add("Unsqueeze", place, self.integers(2))  # (B, D, 1)
        return self.add("GatherND", table, places, batch_dims=1)

    def length(self, tensor: str, *, axis: int) -> str:
        """The length of an axis: int64 (1,)."""
        return self.add("Shape", tensor, start=axis, end=axis + 1)

    def minimum(self, most: int, length: str) -> str:
        """int64 (1,)."""
        return self.add("Min", self.integers(most), length)

    def integers(self, *values: int) -> str:
        """A constant int64 (n,)."""
        return self._constant(np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """A constant int64 ()."""
        return self._constant(np.array(value, np.int64))

    def numbers(self, *values: float) -> str:
        """A constant float32 (n,)."""
        return self._constant(np.array(values, np.float32))

    def number(self, value: float) -> str:
        """A constant float32 ()."""
        return self._constant(np.array(value, np.float32))

    def finish(self, *, outputs: Sequence[str]) -> None:
        """Make these the model's outputs: boxes, scores, labels, counts."""
        types = self._onnx.TensorProto
        shapes = {
            "boxes": (types.FLOAT, ("batch", "detections", 4)),
            "scores": (types.FLOAT, ("batch", "detections")),
            "labels": (types.INT64, ("batch", "detections")),
            "counts": (types.INT64, ("batch",)),
        }
        make = self._onnx.helper.make_tensor_value_info
        del self._model.graph.output[:]
        self._model.graph.output.extend(make(name, *shapes[name]) for name in outputs)

    def _append(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: dict[str, int],
    ) -> None:
        name = f"suppression_{operator}_{len(self._model.graph.node)}"
        make = self._onnx.helper.make_node
        self._model.graph.node.append(make(operator, inputs, outputs, name=name, **attributes))

    def _constant(self, values: np.ndarray) -> str:
        name = self._name("constant")
        tensor = self._onnx.numpy_helper.from_array(values, name)
        self._model.graph.initializer.append(tensor)
        return name

    def _name(self, what: str) -> str:
        self._number += 1
        return f"suppression_{what}_{self._number}"
