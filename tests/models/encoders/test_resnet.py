import pytest
import torch
import torchvision

from yolo.models.encoders import ENCODERS


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_the_maps_are_those_inside_torchvisions_classifier(name):
    reference = torchvision.models.get_model(name, weights=None).eval()
    for buffer in reference.buffers():  # statistics as if it had been trained
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    maps = []
    for layer in (reference.layer2, reference.layer3, reference.layer4):
        layer.register_forward_hook(lambda layer, inputs, output: maps.append(output))
    encoder = ENCODERS[name]().eval()
    missing, left = encoder.load_state_dict(reference.state_dict(), strict=False)
    assert (missing, left) == ([], ["fc.weight", "fc.bias"])
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        reference(images)
        found = encoder(images)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, maps, strict=True))
