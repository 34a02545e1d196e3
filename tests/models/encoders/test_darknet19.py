import torch
from torch import nn

from yolo.models.encoders.darknet import Darknet19


def test_layers_are_those_of_the_cfg():
    """Maps taken by hand from the layers in the order of yolov2.cfg: 16 is passed through."""
    torch.manual_seed(0)
    encoder = Darknet19().eval()
    convs = iter(m for m in encoder.modules() if hasattr(m, "conv"))
    pools_at = (1, 3, 7, 11, 17)
    layers = [nn.MaxPool2d(2) if i in pools_at else next(convs) for i in range(23)]
    assert next(convs, None) is None
    outputs = []
    x = images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for layer in layers:
            x = layer(x)
            outputs.append(x)
        maps = encoder(images)
    assert all(torch.equal(m, outputs[i]) for m, i in zip(maps, (10, 16, 22), strict=True))
