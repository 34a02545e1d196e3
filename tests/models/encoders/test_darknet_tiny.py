import torch
from torch import nn

from yolo.models.encoders.darknet import DarknetTiny, SameSizeMaxPool


def test_same_size_pool_looks_right_and_down():
    x = -torch.arange(9.0).view(1, 1, 3, 3)  # the maximum of a window is its upper left
    assert torch.equal(SameSizeMaxPool()(x), x)
    assert SameSizeMaxPool()(-x)[0, 0].tolist() == [[4, 5, 5], [7, 8, 8], [7, 8, 8]]


def test_layers_are_those_of_the_cfg():
    """Maps taken by hand from the layers in the cfg's order."""
    torch.manual_seed(0)
    encoder = DarknetTiny(width=0.5).eval()
    pools = [nn.MaxPool2d(2)] * 5 + [SameSizeMaxPool()]
    layers = [encoder.convs[0]]
    for pool, conv in zip(pools, encoder.convs[1:], strict=True):
        layers += [pool, conv]
    outputs = []
    x = images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for layer in layers:
            x = layer(x)
            outputs.append(x)
        maps = encoder(images)
    assert all(torch.equal(m, outputs[i]) for m, i in zip(maps, (6, 8, 12), strict=True))
