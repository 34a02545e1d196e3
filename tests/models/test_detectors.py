import pytest
import torch

from yolo.models.encoders import ENCODERS
from yolo.models.yolov3 import yolov3


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("neck_width", ["paper", "scaled", 0.25])
def test_every_encoder_under_every_neck_learns(name, neck_width):
    """Shapes at 64 px, and a finite gradient for every parameter, under autocast."""
    torch.manual_seed(0)
    model = yolov3(encoder=ENCODERS[name](), classes=3, neck_width=neck_width)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = model(images)
    assert [tuple(r.shape) for r in raw] == [(2, 3, n, n, 8) for n in (8, 4, 2)]
    sum(r.float().square().sum() for r in raw).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


def test_darknet53_has_darknets_parameters():
    model = yolov3(encoder=ENCODERS["darknet53"](), classes=80)
    assert sum(p.numel() for p in model.parameters()) == 61_949_149
    assert not any(
        p.dim() == 4 and not p.is_contiguous(memory_format=torch.channels_last)
        for p in model.parameters()
    )
    numbers = sum(
        t.numel()
        for name, t in model.state_dict().items()
        if t.is_floating_point() and not name.startswith("normalise.")
    )
    header_bytes = 20
    assert numbers * 4 + header_bytes == 248_007_048  # the size of yolov3.weights


def test_normalisation_is_the_encoders():
    darknet = yolov3(encoder=ENCODERS["darknet_tiny"](width=0.25), classes=1, neck_width="scaled")
    mobilenet = yolov3(encoder=ENCODERS["mobilenet_v3_small"](), classes=1, neck_width="scaled")
    assert darknet.normalise.std.flatten().tolist() == [1, 1, 1]
    expected = torch.tensor([0.485, 0.456, 0.406])
    torch.testing.assert_close(mobilenet.normalise.mean.flatten(), expected)


def test_any_multiple_of_32_and_names_that_can_be_read():
    model = yolov3(encoder=ENCODERS["darknet_tiny"](width=0.25), classes=2, neck_width="scaled")
    with torch.no_grad():
        raw = model.eval()(torch.zeros(1, 3, 96, 160, dtype=torch.uint8))
    assert [tuple(r.shape[2:4]) for r in raw] == [(12, 20), (6, 10), (3, 5)]
    names = set(model.state_dict())
    assert {"encoder.convs.0.conv.weight", "neck.stride32.0.norm.bias"} <= names
    assert {"neck.up16.0.conv.weight", "head.stride8.output.bias", "normalise.mean"} <= names
