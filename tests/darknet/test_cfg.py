"""The text of a cfg, and the layers of the models as Darknet's own cfg files have them."""

import re

import torch
from torch import nn

from tests.detectors import make_detector
from yolo.darknet.cfg import (
    Convolution,
    LayerList,
    MaxPool,
    Region,
    Reorg,
    Route,
    Shortcut,
    Upsample,
    Yolo,
    cfg_text,
)
from yolo.models.detector import list_detector

SECTIONS = (
    "[net]; batch=1; subdivisions=1; width=96; height=96; channels=3",
    "[convolutional]; batch_normalize=1; filters=8; size=3; stride=2; pad=1; activation=leaky",
    "[convolutional]; filters=7; size=1; stride=1; pad=1; activation=linear",
    "[shortcut]; from=-2; activation=linear",
    "[route]; layers=-1,-3",
    "[upsample]; stride=2",
    "[maxpool]; size=5; stride=1",
    "[reorg]; stride=2",
    "[yolo]; mask=1; anchors=10,13.5, 64,32; classes=2; num=2; thresh=0",
    "[region]; anchors=0.3125,0.421875, 2,1; classes=2; num=2; coords=4; softmax=1; thresh=0",
)
"""With "; " for the end of a line."""


def test_every_kind_of_section():
    layers = LayerList()
    conv = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1, bias=False)
    layers.add(Convolution(conv, norm=nn.BatchNorm2d(8), activation="leaky"))
    layers.add(Convolution(nn.Conv2d(8, 7, kernel_size=1), norm=None, activation="linear"))
    layers.add(Shortcut(source=0))
    layers.add(Route((2, 0)))
    layers.add(Upsample(stride=2))
    layers.add(MaxPool(size=5, stride=1))
    layers.add(Reorg(stride=2))
    layers.add(Yolo(mask=(1,), anchors=2, classes=2))
    layers.add(Region(anchors=2, classes=2, stride_px=32))
    anchors = [(10, 13.5), (64, 32)]
    text = cfg_text(layers, image_size_px=96, anchors_px=anchors, detection={"thresh": 0})
    assert text == "\n\n".join(SECTIONS).replace("; ", "\n") + "\n"


def layers_of(encoder, neck, *, size=416):
    """Each section of the model's cfg in one word: conv 32/3, route -1,-25, yolo 6,7,8."""
    with torch.device("meta"):
        layers = list_detector(make_detector(encoder, neck, classes=80, neck_width="paper"))
    anchors = [(1, 1)] * max(getattr(record, "anchors", 0) for record in layers)
    text = cfg_text(layers, image_size_px=size, anchors_px=anchors, detection={})
    return [shorten(section) for section in text.split("\n\n")[1:]]


def shorten(section):
    kind = re.match(r"\[(\w+)\]", section)[1]
    options = dict(re.findall(r"(\w+)=(.*)", section))
    match kind:
        case "convolutional":
            norm = "" if options.get("batch_normalize") == "1" else " plain"
            return f"conv {options['filters']}/{options['size']}/{options['stride']}{norm}"
        case "route":
            return f"route {options['layers']}"
        case "shortcut":
            return f"shortcut {options['from']}"
        case "yolo":
            return f"yolo {options['mask']}"
        case "maxpool":
            return f"pool {options['size']}/{options['stride']}"
    return kind


def test_yolov3_tiny_is_darknets():
    """All 24 layers of yolov3-tiny.cfg; the last route names layer 8."""
    trunk = [f"conv {c}/3/1" for c in (16, 32, 64, 128, 256, 512)]
    pools = [*["pool 2/2"] * 5, "pool 2/1"]
    assert layers_of("darknet_tiny", "yolov3_tiny") == [
        *(layer for pair in zip(trunk, pools, strict=True) for layer in pair),
        *["conv 1024/3/1", "conv 256/1/1", "conv 512/3/1", "conv 255/1/1 plain", "yolo 3,4,5"],
        *["route -4", "conv 128/1/1", "upsample", "route -1,-12"],
        *["conv 256/3/1", "conv 255/1/1 plain", "yolo 0,1,2"],
    ]


def scale(channels, mask):
    """Five convolutions, and the two of the head."""
    narrow, wide = f"conv {channels}/1/1", f"conv {2 * channels}/3/1"
    return [*[narrow, wide] * 3, "conv 255/1/1 plain", f"yolo {mask}"]


def test_yolov3_is_darknets():
    """All 107 layers of yolov3.cfg; its routes there are written -4, 61 and 36."""
    layers = layers_of("darknet53", "yolov3")
    assert layers[:5] == ["conv 32/3/1", "conv 64/3/2", "conv 32/1/1", "conv 64/3/1", "shortcut -3"]
    assert layers[75:] == [
        *scale(512, "6,7,8"),
        *["route -4", "conv 256/1/1", "upsample", f"route -1,{61 - 86}"],
        *scale(256, "3,4,5"),
        *["route -4", "conv 128/1/1", "upsample", f"route -1,{36 - 98}"],
        *scale(128, "0,1,2"),
    ]


def test_spatial_pyramid_pooling_is_darknets():
    """Layers 77 to 84 of yolov3-spp.cfg."""
    layers = layers_of("darknet53", "yolov3_spp")
    assert len(layers) == 114
    assert layers[77:85] == [
        *["conv 512/1/1", "pool 5/1", "route -2", "pool 9/1", "route -4", "pool 13/1"],
        *["route -1,-3,-5,-6", "conv 512/1/1"],
    ]


def test_yolov2_is_darknets():
    """All behind the encoder in yolov2.cfg."""
    layers = layers_of("darknet19", "yolov2")
    assert layers.count("pool 2/2") == 5
    assert layers[23:] == [
        *["conv 1024/3/1", "conv 1024/3/1", "route -9", "conv 64/1/1", "reorg", "route -1,-4"],
        *["conv 1024/3/1", "conv 425/1/1 plain", "region"],
    ]
