"""export.py as a user runs it, in process, on checkpoints of small detectors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import export
from tests.checkpoints import write_checkpoint
from tests.detectors import make_config
from yolo.darknet.weights import read_weights
from yolo.factory.detector import build_coder, build_detector
from yolo.factory.initial_weights import load_darknet_detector

NAMES = ["cat", "dog", "traffic light"]
SIZE_PX = 96


@pytest.fixture
def write(tmp_path):
    """Writes best.pt as training would after 5 steps of 16 images."""
    steps = {"batch_size": 16, "micro_batch_size": 16}
    common = {"image_size": SIZE_PX, "class_names": NAMES, "training": steps}
    return lambda **settings: write_checkpoint(tmp_path / "best.pt", **common, **settings)


def test_the_files_lie_beside_the_checkpoint_and_opencv_runs_them(write, tmp_path, capsys):
    path = write(neck="yolov3_tiny")
    assert export.main([str(path), "--format", "darknet", "--thresh", "0"]) == 0
    files = [tmp_path / f"best.{ending}" for ending in ("cfg", "weights", "names")]
    assert capsys.readouterr().out.splitlines() == [str(file) for file in files]
    assert sorted(tmp_path.iterdir()) == sorted([path, *files])
    assert files[2].read_text() == "cat\ndog\ntraffic light\n"
    assert read_weights(files[1]).seen == 5 * 16
    check_opencv(path, files[0], files[1])


def check_opencv(path, cfg, weights):
    """Boxes and scores as ours; the details are in tests/darknet/test_opencv.py."""
    config = make_config(neck="yolov3_tiny", image_size=SIZE_PX)
    detector = build_detector(config, NAMES).eval()
    detector.load_state_dict(torch.load(path, weights_only=True)["model"])
    image = torch.randint(0, 256, (1, 3, SIZE_PX, SIZE_PX), dtype=torch.uint8)
    with torch.inference_mode():
        boxes, scores = build_coder(config)(detector(image))
    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    network.setInput(cv2.dnn.blobFromImage(image[0].permute(1, 2, 0).numpy(), 1 / 255))
    rows = np.concatenate(network.forward(network.getUnconnectedOutLayersNames()))
    assert rows.shape == (*boxes.shape[1:2], 5 + len(NAMES))
    areas = (boxes[0, :, 2:] - boxes[0, :, :2]).prod(1) / SIZE_PX**2
    np.testing.assert_allclose(np.sort(rows[:, 2] * rows[:, 3]), areas.sort()[0], rtol=1e-3)
    np.testing.assert_allclose(np.sort(rows[:, 5:].max(1)), scores[0].amax(1).sort()[0], rtol=1e-3)


def test_output_size_and_averaged_weights(write, tmp_path):
    path = write(neck="yolov3_tiny", averaged=True)
    stem = tmp_path / "other" / "my.net"
    stem.mkdir(parents=True)  # a folder of this name is in nobody's way
    argv = [str(path), "--format", "darknet", "--output", str(stem), "--image-size", "160"]
    assert export.main(argv) == 0
    cfg = (stem.parent / "my.net.cfg").read_text()
    assert "width=160\nheight=160\n" in cfg
    assert cfg.count("[yolo]") == 2
    assert "thresh=0\n" not in cfg
    detector = build_detector(make_config(neck="yolov3_tiny"), NAMES)
    load_darknet_detector(detector, stem.parent / "my.net.weights")
    averaged = torch.load(path, weights_only=True)["ema"]
    for name, parameter in detector.named_parameters():
        assert torch.equal(parameter, averaged[f"module.{name}"]), name


def test_yolov2_is_written_with_its_training_settings(write, tmp_path):
    loss = {"object_scale": 4.0, "rescore": False}
    path = write(encoder="darknet19", neck="yolov2", loss=loss)
    assert export.main([str(path), "--format", "darknet"]) == 0
    region = (tmp_path / "best.cfg").read_text().split("[region]")[1].splitlines()
    settings = {"coords=4", "softmax=1", "num=5", "object_scale=4", "rescore=0", "thresh=0.6"}
    assert settings <= set(region)
    assert "anchors=0.57273,0.677385, 1.87446,2.06253" in "\n".join(region)


def test_the_scale_of_centres_is_written(write, tmp_path):
    path = write(neck="yolov3_tiny", model={"head": {"type": "yolov3_tiny", "scale_xy": 1.05}})
    assert export.main([str(path), "--format", "darknet"]) == 0
    assert (tmp_path / "best.cfg").read_text().count("\nscale_x_y=1.05\n") == 2
    assert export.main([str(write(neck="yolov3_tiny")), "--format", "darknet"]) == 0
    assert "scale_x_y" not in (tmp_path / "best.cfg").read_text()


REFUSED = [
    ({"encoder": "mobilenet_v3_small"}, "encoder MobileNetV3 is not one"),
    ({"encoder": "resnet18", "neck": "yolov2"}, "encoder ResNet is not one"),
    ({"loss": {"class_loss": "cross_entropy"}}, "loss.class_loss: cross_entropy"),
    ({"model": {"preprocessing": "imagenet"}}, "Darknet knows RGB / 255 only"),
    ({"model": {"head": {"type": "yolov3", "decoupled": True}}}, "cannot hold a decoupled head"),
    (
        {
            "encoder": "darknet19",
            "neck": "yolov2",
            "model": {"head": {"type": "yolov2", "scale_xy": 1.1}},
        },
        "leave their cells (model.head.scale_xy), and Darknet's [region] layer",
    ),
]


@pytest.mark.parametrize(("settings", "text"), REFUSED)
def test_what_darknet_cannot_express_is_refused(write, settings, text, tmp_path, capsys):
    path = write(**settings)
    assert export.main([str(path), "--format", "darknet"]) == 1
    error = capsys.readouterr().err
    assert text in error and str(path) in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_failure(write, tmp_path, capsys, monkeypatch):
    """The disk is full when the weights are written: the files of before stay, all three."""
    path = write(neck="yolov3_tiny")
    (tmp_path / "best.cfg").write_text("before")

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yolo.apps.export.darknet.write_weights", full)
    assert export.main([str(path), "--format", "darknet"]) == 1
    assert "best.weights: cannot be written (No space left on device)" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "best.cfg", path]
    assert (tmp_path / "best.cfg").read_text() == "before"


BAD_FORMATS = (
    *("coreml", "darknet --image-size 100", "darknet --thresh 2", "darknet --nms"),
    *("darknet --output /nowhere/at/all", "torchscript --nms", "onnx --thresh 0.5"),
    *("onnx --thresh 0", "onnx --output .", "torchscript --output /"),
    *("onnx --conf 0.5", "onnx --image-size 100"),
)


@pytest.mark.parametrize("line", ["", "best.pt", *(f"best.pt --format {f}" for f in BAD_FORMATS)])
def test_bad_usage(line, usage_error):
    assert len(usage_error(export.main, *line.split()).splitlines()) == 1


def test_no_checkpoint(tmp_path, capsys):
    (tmp_path / "best.pt").write_text("text")
    assert export.main([str(tmp_path / "best.pt"), "--format", "darknet"]) == 1
    assert "not a checkpoint" in capsys.readouterr().err
