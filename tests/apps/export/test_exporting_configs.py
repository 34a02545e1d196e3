"""Every config's detector with random weights through the gate of the export."""

import pytest
import torch
from torch import nn

from tests.detectors import save_detector
from yolo.apps.export.check import check_batches
from yolo.apps.export.exporting import export_model
from yolo.config import REPOSITORY_ROOT, load_config
from yolo.evaluate.exported import ExportedModel
from yolo.factory.detector import build_detector

FOLDER = REPOSITORY_ROOT / "configs"
DETECTORS = sorted(
    path
    for path in FOLDER.rglob("*.yaml")
    if path.parent.name not in ("base", "pretrain", "recipes")
)


def test_there_are_configs():
    assert len(DETECTORS) > 25
    assert {path.parent.name for path in DETECTORS} >= {"yolov1", "yolov2", "yolov3"}


def write_checkpoint(path, config):
    """Random weights with the statistics of one batch, as after a first step.

    Without them nothing in a deep residual network keeps numbers from growing, and what it finds is
    the rounding error of float32, in PyTorch too. The last layer is a fifth as strong: an untrained
    ResNet-101 is otherwise 0.07 px away from itself in float64.
    """
    names = [f"class {i}" for i in range(20)]
    detector = build_detector(config, names)
    for layer in detector.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    for name, parameter in detector.head.named_parameters():
        if name.endswith("output.weight"):
            parameter.data *= 0.2
        elif name.endswith("output.bias"):  # boxes with a score, so that there is what to suppress
            parameter.data += 0.3 if config.model.head.type == "yolov1" else -parameter.data
    size_px = config.data.image_size if config.model.head.type == "yolov1" else 320
    _, scenes = check_batches(None, [(size_px, size_px)])
    with torch.no_grad():
        detector.train()(scenes)
    return save_detector(path, detector, config, names)


@pytest.mark.slow
@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_detector_passes_the_gate(path, tmp_path):
    """Batches of 1 and 4, an empty scene; 320 and 416 px, but YOLOv1 at its own size."""
    config = load_config(path, ["model.encoder.weights=null", "model.init=null"]).config
    checkpoint = write_checkpoint(tmp_path / "random.pt", config)
    if config.model.head.type == "yolov1":
        assert ExportedModel.open(export_model(checkpoint, ".onnx", nms=True)).metadata.nms
        return
    for size_px in (320, 416):
        export_model(
            checkpoint, ".onnx", image_size_px=size_px, nms=True, dynamic_size=size_px == 320
        )
    export_model(checkpoint, ".torchscript", image_size_px=320)
