import torch

from yolo.models.heads.anchors import OBJECTNESS, YOLOv3Head

STRIDES = (8, 16, 32)


def make_head(*, in_channels=(8, 16, 32), hidden_channels=(16, 32, 64), strides_px=STRIDES):
    return YOLOv3Head(
        in_channels=in_channels,
        hidden_channels=hidden_channels,
        strides_px=strides_px,
        anchors_per_cell=3,
        classes=4,
    )


def test_channels_hold_one_anchor_after_the_other():
    head = make_head()
    for scale in (head.stride8, head.stride16, head.stride32):
        torch.nn.init.zeros_(scale.output.weight)
        scale.output.bias.data = torch.arange(27.0)
    maps = tuple(torch.randn(2, c, n, n + 1) for c, n in ((8, 4), (16, 2), (32, 1)))
    raw = head(maps)
    assert [tuple(r.shape) for r in raw] == [(2, 3, 4, 5, 9), (2, 3, 2, 3, 9), (2, 3, 1, 2, 9)]
    for r in raw:
        expected = torch.arange(27.0).view(1, 3, 1, 1, 9).expand_as(r)
        assert torch.equal(r, expected)


def test_cells_stay_in_their_place_without_a_copy():
    head = make_head().stride8.eval()
    x = torch.randn(1, 8, 4, 6).to(memory_format=torch.channels_last)
    raw = head(x)
    channels = head.output(head.conv(x))
    assert torch.equal(raw[0, 1, 2, 3, 5], channels[0, 9 + 5, 2, 3])
    assert raw.stride()[-1] == 1, "a view of channels-last memory"


def test_training_starts_with_hardly_an_object():
    head = make_head()
    raw = head(tuple(torch.randn(2, c, 8, 8) for c in (8, 16, 32)))
    for r in raw:
        objectness = r[..., OBJECTNESS].sigmoid()
        assert objectness.min() > 0.005 and objectness.max() < 0.02
        assert r[..., :OBJECTNESS].abs().max() < 0.6


def test_two_scales_and_their_hidden_channels():
    """YOLOv3-tiny's at stride 16 are fewer than twice the map's."""
    head = make_head(in_channels=(8, 16), strides_px=(16, 32), hidden_channels=(8, 32))
    assert [name for name, _ in head.named_children()] == ["stride16", "stride32"]
    assert (head.stride16.conv.conv.out_channels, head.stride32.conv.conv.out_channels) == (8, 32)
    raw = head((torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2)))
    assert [tuple(r.shape) for r in raw] == [(2, 3, 4, 4, 9), (2, 3, 2, 2, 9)]
