import pytest
import torch
import torchvision

from yolo.models.encoders import ENCODERS

NAMES = ["mobilenet_v3_large", "mobilenet_v3_small"]


def random_torchvision(name):
    """Torchvision's classifier with weights and statistics as if it had been trained."""
    model = torchvision.models.get_model(name, weights=None).eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return model


def last_map(model, images):
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize("name", NAMES)
def test_torchvisions_tensors_give_torchvisions_own_features(name):
    reference = random_torchvision(name)
    encoder = ENCODERS[name]().eval()
    left = encoder.load_state_dict(reference.state_dict(), strict=False)
    assert left.missing_keys == []
    assert all(name.startswith("classifier.") for name in left.unexpected_keys)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(last_map(encoder, images)[2], last_map(reference.features, images))
    cut = list(reference.features)[: encoder.last_layers[1] + 1]
    stride16 = last_map(torch.nn.Sequential(*cut), images)
    assert torch.equal(last_map(encoder, images)[1], stride16)


@pytest.mark.parametrize("name", NAMES)
def test_each_map_is_the_last_of_its_stride(name):
    """The layer after each map is the one that halves the size."""
    encoder = ENCODERS[name]().eval()
    x = torch.randn(1, 3, 64, 64)
    sizes = [(x := last_map(layer, x)).shape[-1] for layer in encoder.features]
    for last, size in zip(encoder.last_layers, (8, 4, 2), strict=True):
        assert [i for i, s in enumerate(sizes) if s == size][-1] == last
