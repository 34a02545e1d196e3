"""Fused networks are the networks."""

import pytest
import torch
from torch import nn

from tests.detectors import make_detector
from yolo.models.encoders import ENCODERS
from yolo.models.fusing import fuse

WHOLLY_FUSED = {
    *("darknet19", "darknet53", "darknet_tiny", "extraction"),
    *("mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet50", "resnet101"),
}
"""Not DenseNet, CONTRIBUTING's example, whose norms stand before its convolutions."""

NECKS = {"extraction": "yolov1", "darknet19": "yolov2"}


def with_statistics(model):
    """As after some training: means, variances and gains are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.running_mean, -0.2, 0.2),
                (layer.running_var, 0.5, 2.0),
                (layer.weight.data, 0.8, 1.2),
                (layer.bias.data, -0.2, 0.2),
            ):
                tensor.uniform_(low, high, generator=generator)
    return model.eval()


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_encoder_is_fused_and_finds_the_same(encoder):
    model = with_statistics(make_detector(encoder, NECKS.get(encoder, "yolov3")))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        before = model(images)
        fused = fuse(model)
        after = fused(images)
        again = model(images)
    if encoder in WHOLLY_FUSED:
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in fused.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    for a, b, c in zip(before, after, again, strict=True):
        assert torch.equal(a, c)
        assert (a - b).abs().max() <= 2e-5 * a.abs().max()
    assert not fused.training
    assert not any(p.requires_grad for p in fused.parameters())
    assert any(p.requires_grad for p in model.parameters())


def test_one_block_by_hand():
    """Weight 3, mean 1, variance 4, gain 2, shift 5: 2 * (3 x - 1) / 2 + 5 = 3 x + 4."""
    block = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)).eval()
    conv, norm = block
    with torch.no_grad():
        for tensor, value in (
            (conv.weight, 3),
            (norm.running_mean, 1),
            (norm.running_var, 4),
            (norm.weight, 2),
            (norm.bias, 5),
        ):
            tensor.fill_(value)
    fused = fuse(block)
    assert fused[0].weight.item() == 3
    assert fused[0].bias.item() == 4
    assert isinstance(fused[1], nn.Identity)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3),  # of another width than the convolution before it
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
    ],
)
def test_what_cannot_be_fused_stays_as_it_is(norm):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.before = nn.BatchNorm2d(3)
            self.conv = nn.Conv2d(3, 4, 1)
            self.norm = norm

        def forward(self, x):
            width = self.norm.num_features
            return self.norm(self.conv(self.before(x))[:, :width])

    model = with_statistics(Model()) if norm.affine and norm.track_running_stats else Model().eval()
    x = torch.randn(2, 3, 4, 4)
    fused = fuse(model)
    assert torch.equal(fused(x), model(x))
    assert isinstance(fused.before, nn.BatchNorm2d) and isinstance(fused.norm, nn.BatchNorm2d)
