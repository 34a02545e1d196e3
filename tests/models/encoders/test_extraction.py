import torch
from torch import nn

from yolo.models.encoders.darknet import Extraction
from yolo.models.layers import ConvBlock

CFG = "64/7/2 M 192/3 M 128/1 256/3 256/1 512/3 M 256/1 512/3 256/1 512/3 256/1 512/3 256/1 512/3 "
CFG += "512/1 1024/3 M 512/1 1024/3 512/1 1024/3"
"""Darknet's extraction.cfg before its classifier: filters/size/stride, M for max pooling."""


def test_parameters_by_hand():
    """Weights of the 20 convolutions, and two numbers of batch norm for each of 9,088 filters."""
    weights = [
        7 * 7 * 3 * 64,
        3 * 3 * 64 * 192,
        192 * 128 + 9 * 128 * 256 + 256 * 256 + 9 * 256 * 512,
        4 * (512 * 256 + 9 * 256 * 512) + 512 * 512 + 9 * 512 * 1024,
        2 * (1024 * 512 + 9 * 512 * 1024),
    ]
    assert sum(weights) == 22_394_048
    filters = 64 + 192 + (128 + 256 + 256 + 512) + 4 * (256 + 512) + 512 + 1024 + 2 * (512 + 1024)
    encoder = Extraction()
    assert sum(p.numel() for p in encoder.parameters()) == 22_394_048 + 2 * filters
    assert sum(isinstance(m, nn.Conv2d) for m in encoder.modules()) == 20


def test_layers_are_those_of_the_cfg():
    """Maps taken by hand from the encoder's own convolutions, chained as the cfg chains them."""
    encoder = Extraction().eval()
    convs = iter([m for m in encoder.modules() if isinstance(m, ConvBlock)])
    x = images = torch.randn(1, 3, 64, 64)
    before_pooling = []
    with torch.no_grad():
        for layer in CFG.split():
            if layer == "M":
                before_pooling.append(x)
                x = nn.functional.max_pool2d(x, 2)
                continue
            filters, size, stride = (*map(int, layer.split("/")), 1)[:3]
            conv = next(convs)
            assert conv.conv.out_channels == filters
            assert conv.conv.kernel_size == (size, size) and conv.conv.stride == (stride, stride)
            x = conv(x)
        maps = encoder(images)
    expected = (*before_pooling[2:], x)
    assert all(torch.equal(m, e) for m, e in zip(maps, expected, strict=True))
