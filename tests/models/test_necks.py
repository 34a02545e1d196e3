"""Necks: their channels, and which cells of the encoder a cell of theirs sees."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from yolo.errors import UserError
from yolo.models.necks import (
    Reorg,
    SpatialPyramidPool,
    YOLOv1Neck,
    YOLOv2Neck,
    YOLOv3Neck,
    YOLOv3SPPNeck,
    YOLOv3TinyNeck,
)


@pytest.mark.parametrize(
    ("in_channels", "width", "channels"),
    [
        ((512, 1024, 1024), "paper", 1024),
        ((128, 256, 512), "paper", 1024),
        ((128, 256, 512), "scaled", 512),
        ((24, 48, 576), "scaled", 576),
        ((8, 8, 8), "scaled", 32),
        ((512, 1024, 1024), 0.25, 256),
    ],
)
def test_widths_of_yolov1(in_channels, width, channels):
    neck = YOLOv1Neck(in_channels=in_channels, width=width)
    assert neck.out_channels == (channels,) and neck.strides_px == (64,)
    convs = [m for m in neck.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.in_channels for c in convs] == [in_channels[2], channels, channels, channels]
    assert [c.stride[0] for c in convs] == [1, 2, 1, 1]


def test_one_map_at_stride_64_from_the_coarsest():
    neck = YOLOv1Neck(in_channels=(8, 8, 8), width=0.03).eval()
    maps = [torch.randn(2, 8, n, n) for n in (24, 12, 6)]
    (out,) = neck(tuple(maps))
    assert out.shape == (2, 32, 3, 3)
    (same,) = neck((maps[0] + 1, maps[1] + 1, maps[2]))
    assert torch.equal(out, same)


def test_cells_that_would_not_cover_the_image_are_refused():
    """416 px: 13 cells of 32 px would become 7 of 64, as if the image had 448."""
    neck = YOLOv1Neck(in_channels=(8, 8, 8), width=0.03)
    with pytest.raises(UserError, match="416 x 416 px: YOLOv1 works at multiples of 64 px"):
        neck(tuple(torch.randn(1, 8, n, n) for n in (52, 26, 13)))


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
def test_widths_of_yolov2(in_channels, width, out, fine):
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


CFG = (
    "[net] channels=8 height=6 width=10 "
    "[convolutional] filters=8 size=1 stride=1 activation=linear "
    "[maxpool] size=2 stride=2 [route] layers=-2 [reorg] stride=2 [route] layers=-1,-3"
).replace(" ", "\n")


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


@pytest.mark.parametrize(
    ("neck", "in_channels", "width", "out_channels", "head_channels"),
    [
        (YOLOv3Neck, (40, 112, 960), "paper", (128, 256, 512), (256, 512, 1024)),
        (YOLOv3Neck, (256, 512, 1024), "scaled", (128, 256, 512), (256, 512, 1024)),
        (YOLOv3Neck, (40, 112, 960), "scaled", (32, 56, 112), (64, 112, 224)),
        (YOLOv3Neck, (24, 48, 576), "scaled", (32, 32, 48), (64, 64, 96)),
        (YOLOv3Neck, (256, 512, 1024), 0.5, (64, 128, 256), (128, 256, 512)),
        (YOLOv3Neck, (256, 512, 1024), 1, (128, 256, 512), (256, 512, 1024)),
        # stride 16 carries the encoder's map along; what the neck adds has 32 channels at least
        (YOLOv3TinyNeck, (128, 256, 1024), "paper", (384, 256), (256, 512)),
        (YOLOv3TinyNeck, (32, 64, 256), "scaled", (96, 32), (64, 64)),
        (YOLOv3TinyNeck, (128, 256, 1024), 0.5, (320, 128), (128, 256)),
    ],
)
def test_widths_of_yolov3(neck, in_channels, width, out_channels, head_channels):
    built = neck(in_channels=in_channels, width=width)
    assert (built.out_channels, built.head_channels) == (out_channels, head_channels)


def test_a_coarse_cell_reaches_its_four_finer_cells_and_their_surroundings_alone():
    """Two 3x3 convolutions follow at each scale: a reach of two cells there."""
    neck = YOLOv3Neck(in_channels=(8, 8, 8), width=0.1).eval()
    maps = [torch.randn(1, 8, n, n) for n in (64, 32, 16)]
    maps[2].requires_grad_()
    out8, out16, out32 = neck(tuple(maps))
    assert [m.shape[-1] for m in (out8, out16, out32)] == [64, 32, 16]
    (gradient,) = torch.autograd.grad(out8[0, :, 32, 32].sum(), maps[2])
    reached = gradient[0].abs().sum(0).nonzero()
    # cell 32 at stride 8 sees 30..34, so 15..17, so 13..19, so 6..9, so 4..11 at stride 32
    assert reached.amin(0).tolist() == [4, 4]
    assert reached.amax(0).tolist() == [11, 11]


def test_spatial_pyramid_pooling_takes_the_largest_of_each_window():
    """Largest window first, the map itself last; windows end at the border."""
    x = torch.randn(1, 2, 15, 16)
    channels = SpatialPyramidPool()(x)
    assert channels.shape == (1, 8, 15, 16)
    for row, column in ((0, 0), (7, 8), (14, 3)):
        for index, size in enumerate((13, 9, 5, 1)):
            rows = slice(max(0, row - size // 2), row + size // 2 + 1)
            columns = slice(max(0, column - size // 2), column + size // 2 + 1)
            expected = x[0, :, rows, columns].flatten(1).amax(1)
            assert torch.equal(channels[0, 2 * index : 2 * index + 2, row, column], expected)


def test_spp_differs_from_the_plain_neck_at_stride_32_alone():
    plain, spp = (
        {name for name, _ in cls(in_channels=(8, 8, 8), width=0.1).named_parameters()}
        for cls in (YOLOv3Neck, YOLOv3SPPNeck)
    )
    assert plain != spp
    assert all(name.startswith("stride32.") for name in plain ^ spp)


def test_the_way_up_comes_first_and_the_encoders_map_as_it_is():
    neck = YOLOv3TinyNeck(in_channels=(4, 8, 16), width=0.25).eval()
    maps = tuple(torch.randn(1, c, n, n) for c, n in ((4, 8), (8, 4), (16, 2)))
    out16, out32 = neck(maps)
    assert out32.shape == (1, 64, 2, 2)
    up, carried = out16[:, :32], out16[:, 32:]
    assert torch.equal(carried, maps[1])
    assert torch.equal(up, neck.up32[0](out32).repeat_interleave(2, 2).repeat_interleave(2, 3))
