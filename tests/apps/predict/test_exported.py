"""Predictors of exported files: the same interface, the same boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.apps.predict.checkpoints import CONF, write_checkpoint
from tests.apps.predict.test_predictor import same
from yolo.apps.export.exporting import export_onnx, export_torchscript
from yolo.apps.predict import Predictor
from yolo.errors import UserError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def silent(text):
    """In place of print."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("exported") / "best.pt", neck="yolov3_tiny")


@pytest.fixture(scope="module")
def expected(checkpoint):
    predictor = Predictor.from_checkpoint(checkpoint, device="cpu", conf=CONF, precision="fp32")
    found = predictor(images())
    assert min(len(one.names) for one in found) > 2
    return found


def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((70, 120), (96, 40))]


@pytest.mark.parametrize("kind", ["onnx", "onnx with suppression", "torchscript"])
def test_the_same_boxes_as_the_checkpoint(kind, checkpoint, expected, tmp_path):
    output = tmp_path / f"model.{kind.split()[0]}"
    if kind == "torchscript":
        export_torchscript(checkpoint, output=output, log=silent)
    else:
        export_onnx(checkpoint, output=output, nms="with" in kind, conf=CONF, log=silent)
    predictor = Predictor.from_checkpoint(output, conf=CONF)
    assert predictor.image_size_px == 96 and predictor.config["model"]["neck"]["type"]
    for one, other in zip(predictor(images()), expected, strict=True):
        same(one.detections, other.detections)
        assert (sorted(one.names), one.image_hw) == (sorted(other.names), other.image_hw)
    few = predictor(images()[0], conf=0.2)[0]
    same(few.detections, expected[0].detections.above(0.2))
    with pytest.raises(UserError, match="was exported for 96 px alone, not for 128"):
        Predictor.from_checkpoint(output, image_size_px=128)


def test_a_file_for_any_size(checkpoint, tmp_path):
    output = export_torchscript(
        checkpoint, output=tmp_path / "any.torchscript", dynamic_size=True, log=silent
    )
    one = Predictor.from_checkpoint(output, conf=CONF, image_size_px=160)
    other = Predictor.from_checkpoint(
        checkpoint, device="cpu", conf=CONF, image_size_px=160, precision="fp32"
    )
    for found, wanted in zip(one(images()), other(images()), strict=True):
        same(found.detections, wanted.detections)


def test_somebody_elses_file(tmp_path):
    module = torch.jit.script(torch.nn.Identity())
    module.save(str(tmp_path / "other.torchscript"))
    with pytest.raises(UserError, match=r"not a file that export\.py wrote"):
        Predictor.from_checkpoint(tmp_path / "other.torchscript")
