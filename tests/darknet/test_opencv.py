"""OpenCV reads what is written, and finds the very boxes and scores that our networks find."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.detectors import make_config, make_detector
from yolo.darknet.cfg import LayerList, cfg_text
from yolo.darknet.weights import fill, read_weights, tensors, write_weights
from yolo.detection.coders import AnchorCoder
from yolo.factory.detector import build_coder
from yolo.models.detector import Detector, list_detector

CLASSES = 80
TOLERANCE = 1e-4
FILE_BYTES = {"yolov3": 248_007_048, "yolov3_spp": 252_209_544, "yolov3_tiny": 35_434_956}


@dataclass(frozen=True)
class Pair:
    """A detector and its two files; the cfg is written anew for each size."""

    neck: str
    detector: Detector
    coder: AnchorCoder
    layers: LayerList
    folder: Path
    options: dict[str, float] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        return self.folder / "a.weights"

    def network(self, size_px: int) -> cv2.dnn.Net:
        cfg = self.folder / "a.cfg"
        text = cfg_text(
            self.layers,
            image_size_px=size_px,
            anchors_px=self.coder.anchors_px.flatten(0, 1).tolist(),
            detection={"thresh": 0, **self.options},  # OpenCV makes what is below a 0
        )
        cfg.write_text(text)
        network = cv2.dnn.readNetFromDarknet(str(cfg), str(self.weights))
        network.enableWinograd(False)  # its rounding errors are three times as large
        return network


MODELS = [("darknet53", "yolov3"), ("darknet53", "yolov3_spp"), ("darknet_tiny", "yolov3_tiny")]


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model[1])
def yolov3(request, tmp_path_factory):
    yield from make_pair(*request.param, tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def yolov2(tmp_path_factory):
    yield from make_pair("darknet19", "yolov2", tmp_path_factory.mktemp("pair"))


def make_pair(encoder: str, neck: str, folder: Path) -> Iterator[Pair]:
    detector = make_detector(encoder, neck, classes=CLASSES, neck_width="paper")
    let_it_look_trained(detector)
    coder = build_coder(make_config(encoder, neck, neck_width="paper"))
    assert isinstance(coder, AnchorCoder)
    coder.anchors_px *= 0.3  # the papers' are for 416 px
    pair = Pair(neck, detector, coder, list_detector(detector), folder)
    write_weights(pair.weights, pair.layers, seen=1 << 33)
    yield pair
    pair.weights.unlink()  # 250 MB


def let_it_look_trained(detector: Detector) -> None:
    """Random weights, scales, biases and statistics, the last ones near those of noise.

    Far from them, the activations of 75 layers would die or explode. The statistics come from
    images of another size, and are then moved by a tenth of a deviation and by a quarter.
    """
    torch.manual_seed(0)
    norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0  # takes the statistics of the one batch
    for conv in detector.head.modules():
        if isinstance(conv, nn.Conv2d) and conv.bias is not None:
            nn.init.normal_(conv.weight, std=0.3 / conv.in_channels**0.5)
            nn.init.normal_(conv.bias, std=0.3)
    with torch.no_grad():
        detector.train()(noise(224, images=2))
    for norm in norms:
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    detector.eval()


def noise(size_px: int, *, images: int = 1) -> Tensor:
    return torch.randint(0, 256, (images, 3, size_px, size_px), dtype=torch.uint8)


def opencv_outputs(network: cv2.dnn.Net, image: Tensor, names: list[str]) -> list[np.ndarray]:
    """RGB in 0..1, as our networks and Darknet take it."""
    blob = cv2.dnn.blobFromImage(image.permute(1, 2, 0).numpy(), scalefactor=1 / 255)
    network.setInput(blob)
    return list(network.forward(names))


def by_cell(values: Tensor, raw: Tensor) -> Tensor:
    """Our order of boxes, anchor, row, column, into OpenCV's: row, column, anchor."""
    _, anchors, rows, columns, _ = raw.shape
    return values.view(anchors, rows, columns, -1).permute(1, 2, 0, 3).flatten(0, 2)


def decoded(pair: Pair, raw: list[Tensor], size_px: int) -> list[tuple[Tensor, Tensor]]:
    """Per level, in OpenCV's order: boxes cx, cy, w, h relative to the image, and scores."""
    boxes, scores = pair.coder(raw)
    counts = [level[..., 0].numel() for level in raw]
    levels = []
    for level, xyxy, score in zip(
        raw, boxes[0].split(counts), scores[0].split(counts), strict=True
    ):
        cxcywh = torch.cat(((xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]), dim=1)
        levels.append((by_cell(cxcywh / size_px, level), by_cell(score, level)))
    return levels


FULL_SIZES = [pytest.param(size, marks=pytest.mark.slow) for size in (416, 608)]


@pytest.mark.parametrize("size_px", [96, 160, *FULL_SIZES])
def test_opencv_finds_the_same_boxes_and_scores(size_px, yolov3):
    image = noise(size_px)
    with torch.inference_mode():
        ours = decoded(yolov3, yolov3.detector(image), size_px)
    network = yolov3.network(size_px)
    coarse_to_fine = list(network.getUnconnectedOutLayersNames())
    theirs = opencv_outputs(network, image[0], coarse_to_fine[::-1])
    assert len(ours) == len(theirs) == len(yolov3.detector.neck.strides_px)
    for (boxes, scores), rows in zip(ours, theirs, strict=True):
        assert rows.shape == (len(boxes), 5 + CLASSES)
        assert np.abs(boxes.numpy() - rows[:, :4]).max() <= TOLERANCE
        assert np.abs(scores.numpy() - rows[:, 5:]).max() <= TOLERANCE
        assert scores.std() > 0.02 and boxes.std() > 0.05, "the values vary"


def test_opencv_moves_centres_by_the_same_scale(yolov3):
    anchors = {"anchors_px": yolov3.coder.anchors_px.tolist(), "stride_px": yolov3.coder.stride_px}
    scaled = replace(yolov3, coder=AnchorCoder(**anchors, scale_xy=1.2), options={"scale_x_y": 1.2})
    test_opencv_finds_the_same_boxes_and_scores(96, scaled)


def test_read_and_written_again_the_file_is_the_same(yolov3):
    assert yolov3.weights.stat().st_size == FILE_BYTES[yolov3.neck]
    file = read_weights(yolov3.weights)
    now = [tensor for conv in yolov3.layers.convolutions for tensor in tensors(conv)]
    before = [tensor.clone() for tensor in now]
    with torch.no_grad():
        for tensor in now:
            tensor.zero_()
    assert len(fill(yolov3.layers, file.floats)) == len(yolov3.layers.convolutions)
    assert all(torch.equal(tensor, was) for tensor, was in zip(now, before, strict=True))
    again = yolov3.folder / "again.weights"
    write_weights(again, yolov3.layers, seen=file.seen)
    same = filecmp.cmp(again, yolov3.weights, shallow=False)
    again.unlink()
    assert same


@pytest.mark.parametrize("size_px", [96, 160])
def test_opencv_finds_the_same_boxes_and_objectness_for_yolov2(size_px, yolov2):
    """Its scores are suppressed within the layer, so the last convolution is compared instead."""
    image = noise(size_px)
    with torch.inference_mode():
        (raw,) = yolov2.detector(image)
        ((boxes, _),) = decoded(yolov2, [raw], size_px)
    network = yolov2.network(size_px)
    last_convolution = [name for name in network.getLayerNames() if name.startswith("conv_")][-1]
    rows, channels = opencv_outputs(network, image[0], ["detection_out", last_convolution])
    objectness = by_cell(raw[..., 4].sigmoid(), raw)
    assert np.abs(boxes.numpy() - rows[:, :4]).max() <= TOLERANCE
    assert np.abs(objectness[:, 0].numpy() - rows[:, 4]).max() <= TOLERANCE
    ours = raw.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (1, A, H, W, 5 + K) -> (1, A * (5 + K), H, W)
    assert np.abs(ours.numpy() - channels).max() <= TOLERANCE
    assert boxes.std() > 0.05 and objectness.std() > 0.05, "the values vary"
