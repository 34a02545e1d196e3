import pytest
import torch

from yolo.errors import UserError
from yolo.models.necks.yolov1 import YOLOv1Neck


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
def test_widths(in_channels, width, channels):
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
