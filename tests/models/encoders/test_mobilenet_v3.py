import urllib.error

import pytest
import torch
import torchvision

from yolo.errors import UserError
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
@pytest.mark.parametrize("kind", ["classifier", "features"])
def test_a_local_file_gives_torchvisions_own_features(name, kind, tmp_path):
    reference = random_torchvision(name)
    saved = reference if kind == "classifier" else reference.features
    torch.save(saved.state_dict(), tmp_path / "weights.pth")
    encoder = ENCODERS[name](weights=tmp_path / "weights.pth").eval()
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


def test_imagenet_comes_from_torchvisions_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.url
    cached = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    reference = random_torchvision("mobilenet_v3_small")
    torch.save(reference.state_dict(), cached)
    encoder = ENCODERS["mobilenet_v3_small"](weights="imagenet").eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(last_map(encoder, images)[2], last_map(reference.features, images))


def test_imagenet_without_a_network_is_one_sentence(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("offline")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(UserError, match=r"imagenet could not be fetched.*offline.*set weights to"):
        ENCODERS["mobilenet_v3_small"](weights="imagenet")
