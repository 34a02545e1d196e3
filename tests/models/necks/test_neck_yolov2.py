import cv2
import numpy as np
import pytest
import torch
from torch import nn

from yolo.models.necks.yolov2 import Reorg, YOLOv2Neck


@pytest.mark.parametrize(
    ("in_channels", "width", "out", "fine"),
    [
        ((256, 512, 1024), "paper", 1024, 64),
        ((128, 256, 512), "paper", 1024, 64),
        ((128, 256, 512), "scaled", 512, 32),
        ((40, 112, 960), "scaled", 224, 16),
        ((24, 48, 576), "scaled", 96, 8),
        ((256, 512, 1024), 0.3, 304, 16),
    ],
)
def test_widths(in_channels, width, out, fine):
    neck = YOLOv2Neck(in_channels=in_channels, width=width).eval()
    assert neck.out_channels == (out,) and neck.strides_px == (32,)
    assert neck.passthrough[0].conv.out_channels == fine
    with torch.no_grad():
        sizes = zip(in_channels, (8, 4, 2), strict=True)
        (joined,) = neck([torch.zeros(1, channels, n, n) for channels, n in sizes])
    assert joined.shape == (1, out, 2, 2)


def test_reorg_by_hand():
    """Four channels of 2 x 2, read as one of 4 x 4: 0 1 2 3 / 4 5 6 7 / ... in 2 x 2 blocks."""
    x = torch.arange(16.0).view(1, 4, 2, 2)
    groups = [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]
    assert Reorg()(x).shape == (1, 16, 1, 1)
    assert Reorg()(x).flatten().tolist() == groups


CFG = """
[net]
channels=8
height=6
width=10
[convolutional]
filters=8
size=1
stride=1
activation=linear
[maxpool]
size=2
stride=2
[route]
layers=-2
[reorg]
stride=2
[route]
layers=-1,-3
"""


def test_joins_the_maps_in_opencvs_order():
    """OpenCV's reader of Darknet's files: the passed map first, reordered, then the coarse one."""
    header = np.array([0, 1, 0, 0], np.int32).tobytes()
    weights = np.concatenate([np.zeros(8), np.eye(8).ravel()]).astype(np.float32).tobytes()
    net = cv2.dnn.readNetFromDarknet(
        np.frombuffer(CFG.encode(), np.uint8), np.frombuffer(header + weights, np.uint8)
    )
    fine = torch.randn(2, 8, 6, 10)
    net.setInput(fine.numpy())
    expected = net.forward()

    neck = YOLOv2Neck(in_channels=(8, 8, 8), width=0.1)
    neck.passthrough[0] = neck.stride32 = neck.mix = nn.Identity()
    for memory in (torch.contiguous_format, torch.channels_last):
        maps = (None, fine.contiguous(memory_format=memory), nn.functional.max_pool2d(fine, 2))
        (joined,) = neck(maps)
        assert joined.shape == expected.shape == (2, 40, 3, 5)
        np.testing.assert_array_equal(joined.numpy(), expected)
