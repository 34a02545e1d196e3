import pytest
import torch

from yolo.models.necks.yolov3 import SpatialPyramidPool, YOLOv3Neck, YOLOv3SPPNeck


@pytest.mark.parametrize(
    ("in_channels", "width", "out_channels"),
    [
        ((40, 112, 960), "paper", (128, 256, 512)),
        ((256, 512, 1024), "scaled", (128, 256, 512)),
        ((40, 112, 960), "scaled", (32, 56, 112)),
        ((24, 48, 576), "scaled", (32, 32, 48)),
        ((256, 512, 1024), 0.5, (64, 128, 256)),
        ((256, 512, 1024), 1, (128, 256, 512)),
    ],
)
def test_widths(in_channels, width, out_channels):
    neck = YOLOv3Neck(in_channels=in_channels, width=width)
    assert neck.out_channels == out_channels


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
