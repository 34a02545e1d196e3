"""Encoders: what holds for all of them, and that each is the reference."""

import pytest
import torch
import torchvision
from torch import nn

from yolo.models.encoders import ENCODERS
from yolo.models.encoders.darknet import SameSizeMaxPool
from yolo.models.layers import ConvBlock

MOBILENETS = ["mobilenet_v3_large", "mobilenet_v3_small"]
RESNETS = ["resnet18", "resnet50", "resnet101"]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size_px", [32, 96])
def test_channels_and_strides_are_those_of_the_class(name, size_px):
    encoder = ENCODERS[name]().eval()
    maps = encoder(torch.randn(1, 3, size_px, size_px))
    cells = [size_px // stride for stride in (8, 16, 32)]
    expected = [(1, c, n, n) for c, n in zip(encoder.out_channels, cells, strict=True)]
    shapes = [tuple(m.shape) for m in maps]
    assert shapes == expected, f"{name}: its out_channels do not fit the maps that it gives"


def test_tiny_scales_its_channels():
    assert ENCODERS["darknet_tiny"]().out_channels == (128, 256, 1024)
    assert ENCODERS["darknet_tiny"](width=0.5).out_channels == (64, 128, 512)


EXTRACTION = "64/7/2 M 192/3 M 128/1 256/3 256/1 512/3 M " + "256/1 512/3 " * 4
EXTRACTION += "512/1 1024/3 M 512/1 1024/3 512/1 1024/3"
DARKNET19 = "32/3 M 64/3 M 128/3 64/1 128/3 M 256/3 128/1 256/3 M 512/3 256/1 512/3 256/1 512/3 M "
DARKNET19 += "1024/3 512/1 1024/3 512/1 1024/3"
TINY = "8/3 M 16/3 M 32/3 M 64/3 M 128/3 M 256/3 S 512/3"


@pytest.mark.parametrize(
    ("name", "settings", "cfg", "maps_at"),
    [
        ("darknet19", {}, DARKNET19, (10, 16, 22)),
        ("extraction", {}, EXTRACTION, (7, 18, 23)),
        ("darknet_tiny", {"width": 0.5}, TINY, (6, 8, 12)),
    ],
)
def test_layers_are_those_of_the_cfg(name, settings, cfg, maps_at):
    """The encoder's own convolutions, chained as the cfg chains them: filters/size/stride.

    M is max pooling, S the one of stride 1. Of yolov2.cfg layer 16 is passed through.
    """
    torch.manual_seed(0)
    encoder = ENCODERS[name](**settings).eval()
    convs = iter([m for m in encoder.modules() if isinstance(m, ConvBlock)])
    x = images = torch.randn(1, 3, 64, 64)
    outputs = []
    for layer in cfg.split():
        if layer in "MS":
            module = nn.MaxPool2d(2) if layer == "M" else SameSizeMaxPool()
        else:
            filters, size, stride = (*map(int, layer.split("/")), 1)[:3]
            module = next(convs)
            assert module.conv.out_channels == filters
            assert module.conv.kernel_size == (size, size)
            assert module.conv.stride == (stride, stride)
        x = module(x)
        outputs.append(x)
    assert next(convs, None) is None
    maps = encoder(images)
    assert all(torch.equal(m, outputs[i]) for m, i in zip(maps, maps_at, strict=True))


def test_same_size_pool_looks_right_and_down():
    x = -torch.arange(9.0).view(1, 1, 3, 3)  # the maximum of a window is its upper left
    assert torch.equal(SameSizeMaxPool()(x), x)
    assert SameSizeMaxPool()(-x)[0, 0].tolist() == [[4, 5, 5], [7, 8, 8], [7, 8, 8]]


def test_parameters_of_extraction_by_hand():
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
    encoder = ENCODERS["extraction"]()
    assert sum(p.numel() for p in encoder.parameters()) == 22_394_048 + 2 * filters
    assert sum(isinstance(m, nn.Conv2d) for m in encoder.modules()) == 20


def with_its_weights(name):
    """Torchvision's classifier as if it had been trained, and our encoder with its tensors."""
    reference = torchvision.models.get_model(name, weights=None).eval()
    for buffer in reference.buffers():
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    encoder = ENCODERS[name]().eval()
    missing, left = encoder.load_state_dict(reference.state_dict(), strict=False)
    assert missing == []
    assert all(name.startswith(("classifier.", "fc.")) for name in left)
    return reference, encoder


@pytest.mark.parametrize("name", MOBILENETS)
def test_mobilenets_maps_are_torchvisions_features(name):
    reference, encoder = with_its_weights(name)
    images = torch.randn(1, 3, 64, 64)
    _, stride16, stride32 = encoder(images)
    assert torch.equal(stride32, reference.features(images))
    cut = list(reference.features)[: encoder.last_layers[1] + 1]
    assert torch.equal(stride16, nn.Sequential(*cut)(images))


@pytest.mark.parametrize("name", MOBILENETS)
def test_each_map_is_the_last_of_its_stride(name):
    """The layer after each map is the one that halves the size."""
    encoder = ENCODERS[name]().eval()
    x = torch.randn(1, 3, 64, 64)
    sizes = [(x := layer(x)).shape[-1] for layer in encoder.features]
    for last, size in zip(encoder.last_layers, (8, 4, 2), strict=True):
        assert [i for i, s in enumerate(sizes) if s == size][-1] == last


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_maps_are_those_inside_torchvisions_classifier(name):
    reference, encoder = with_its_weights(name)
    maps = []
    for layer in (reference.layer2, reference.layer3, reference.layer4):
        layer.register_forward_hook(lambda layer, inputs, output: maps.append(output))
    images = torch.randn(1, 3, 64, 64)
    reference(images)
    found = encoder(images)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, maps, strict=True))
