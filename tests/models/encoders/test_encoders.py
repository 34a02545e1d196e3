"""What holds for every encoder."""

import pytest
import torch

from yolo.models.encoders import ENCODERS


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size_px", [32, 96])
def test_channels_and_strides_are_what_it_says(name, size_px):
    encoder = ENCODERS[name]().eval()
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, size_px, size_px))
    assert encoder.strides == (8, 16, 32)
    cells = [size_px // stride for stride in encoder.strides]
    expected = [(1, c, n, n) for c, n in zip(encoder.out_channels, cells, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


def test_tiny_scales_its_channels():
    assert ENCODERS["darknet_tiny"]().out_channels == (128, 256, 1024)
    assert ENCODERS["darknet_tiny"](width=0.5).out_channels == (64, 128, 512)
