import pytest
import torch

from yolo.models.necks.yolov3 import YOLOv3TinyNeck


@pytest.mark.parametrize(
    ("in_channels", "width", "out_channels", "head_channels"),
    [
        ((128, 256, 1024), "paper", (384, 256), (256, 512)),
        ((32, 64, 256), "scaled", (96, 32), (64, 64)),
        ((128, 256, 1024), 0.5, (320, 128), (128, 256)),
    ],
)
def test_widths(in_channels, width, out_channels, head_channels):
    """Stride 16 carries the encoder's map along; what the neck adds has 32 channels at least."""
    neck = YOLOv3TinyNeck(in_channels=in_channels, width=width)
    assert (neck.out_channels, neck.head_channels) == (out_channels, head_channels)


def test_the_way_up_comes_first_and_the_encoders_map_as_it_is():
    neck = YOLOv3TinyNeck(in_channels=(4, 8, 16), width=0.25).eval()
    maps = tuple(torch.randn(1, c, n, n) for c, n in ((4, 8), (8, 4), (16, 2)))
    out16, out32 = neck(maps)
    assert out32.shape == (1, 64, 2, 2)
    up, carried = out16[:, :32], out16[:, 32:]
    assert torch.equal(carried, maps[1])
    assert torch.equal(up, neck.up32[0](out32).repeat_interleave(2, 2).repeat_interleave(2, 3))
