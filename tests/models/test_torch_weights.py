"""What weights files hold, and which layers they fill."""

import urllib.error

import pytest
import torch
import torchvision
from torch import nn
from torch.optim.swa_utils import AveragedModel

from yolo.config.schema.base import Section
from yolo.errors import UserError
from yolo.models.detector import Classifier
from yolo.models.encoders import ENCODERS
from yolo.models.layers import IMAGENET, UNIT_RANGE, ConvBlock, Normalise
from yolo.models.torch_weights import (
    IMAGENET_WEIGHTS,
    evaluated_tensors,
    fill_encoder,
    fill_matching,
    imagenet_tensors,
    read_tensors,
    report_filled,
    stored_preprocessing,
    tensors_by_layer,
)


def network(classes: int) -> nn.Module:
    return nn.ModuleDict(
        {
            "normalise": Normalise(mean=(0.0,), std=(1.0,)),
            "blocks": nn.Sequential(ConvBlock(3, 4, kernel_size=1), ConvBlock(4, 4, kernel_size=1)),
            "output": nn.Conv2d(4, classes, 1),
        }
    )


def test_a_convolution_and_its_norm_are_one_layer_and_normalising_is_none():
    layers = tensors_by_layer(network(2))
    assert list(layers) == ["blocks.0", "blocks.1", "output"]
    assert layers["output"] == ["output.weight", "output.bias"]
    assert [name.removeprefix("blocks.1.") for name in layers["blocks.1"]] == [
        "conv.weight",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]


def test_layers_are_filled_as_a_whole_or_not_at_all():
    model, start, other = network(2), network(2), network(3)
    model.load_state_dict(start.state_dict())
    tensors = other.state_dict()
    del tensors["blocks.1.norm.running_var"], tensors["blocks.0.norm.num_batches_tracked"]
    tensors["output.bias"] = torch.ones(2)  # fits, but not beside that weight
    assert fill_matching(model, tensors) == ("blocks.0",)
    found, before = model.state_dict(), start.state_dict()
    for name, value in found.items():
        source = tensors if name.startswith("blocks.0.") and name in tensors else before
        assert torch.equal(value, source[name]), name
    assert not torch.equal(found["blocks.0.conv.weight"], before["blocks.0.conv.weight"])


def test_a_report_names_layers_in_order_and_counts_parameters_without_statistics():
    report = report_filled(network(2), "a file", ["output", "blocks.1"])
    assert (report.filled, report.left) == (("blocks.1", "output"), ("blocks.0",))
    assert report.parameters_filled == (2 * 4 + 2) + (4 * 4 + 4 + 4)
    assert report.parameters == report.parameters_filled + (4 * 3 + 4 + 4)


tiny = ENCODERS["darknet_tiny"]


def whole_model(encoder="darknet_tiny", **settings):
    return Classifier(encoder=ENCODERS[encoder](**settings), classes=2)


def loaded(path):
    encoder = tiny(width=0.25)
    fill_encoder(encoder, read_tensors(path), source=str(path))
    return encoder


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("kind", ["encoder", "model", "checkpoint"])
def test_an_encoder_is_found_in_every_kind_of_file(kind, tmp_path):
    model = whole_model(width=0.25)
    state = model.state_dict()
    content = {
        "encoder": model.encoder.state_dict(),
        "model": state,
        "checkpoint": {"model": state, "ema": None, "step": 7},
    }[kind]
    torch.save(content, tmp_path / "weights.pt")
    assert same_weights(loaded(tmp_path / "weights.pt"), model.encoder)


@pytest.mark.parametrize(
    ("name", "part"),
    [*((name, "") for name in IMAGENET_WEIGHTS), ("mobilenet_v3_small", "features")],
)
def test_torchvisions_own_files_fit(name, part):
    reference = torchvision.models.get_model(name, weights=None)
    tensors = reference.get_submodule(part).state_dict()
    encoder = ENCODERS[name]()
    fill_encoder(encoder, tensors, source="torchvision's")
    whole = reference.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in encoder.state_dict().items())


def test_every_encoder_that_may_say_imagenet_has_its_weights():
    types = {
        name
        for section in Section.__subclasses__()
        if "weights" in section.model_fields
        and "imagenet" in str(section.model_fields["weights"].annotation)
        for name in section.model_fields["type"].annotation.__args__
    }
    assert types == set(IMAGENET_WEIGHTS)
    for name, weights in IMAGENET_WEIGHTS.items():
        assert type(weights)["IMAGENET1K_V1"] is weights
        assert torchvision.models.get_model_weights(name) is type(weights)


def test_of_a_checkpoint_the_averages_are_taken_with_the_trained_statistics(tmp_path):
    model = whole_model(width=0.25)
    averaged = AveragedModel(whole_model(width=0.25))
    for i, tensor in enumerate([*model.state_dict().values(), *averaged.state_dict().values()]):
        tensor.fill_(i % 50 + 1)  # all different between the two
    torch.save({"model": model.state_dict(), "ema": averaged.state_dict()}, tmp_path / "best.pt")
    found = loaded(tmp_path / "best.pt")
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, averaged.module.encoder.get_parameter(name))
        assert not torch.equal(parameter, model.encoder.get_parameter(name))
    for name, buffer in found.named_buffers():
        assert torch.equal(buffer, model.encoder.get_buffer(name))


def test_without_averages_the_trained_weights_are_taken():
    assert evaluated_tensors({"model": {"a": 1}, "ema": None}) == {"a": 1}
    assert evaluated_tensors({"model": {"a": 1, "running_mean": 2}, "ema": {"module.a": 3}}) == {
        "a": 3,
        "running_mean": 2,
    }


def test_a_whole_model_tells_its_preprocessing():
    assert stored_preprocessing(whole_model().state_dict()) == UNIT_RANGE
    stored = stored_preprocessing(whole_model("mobilenet_v3_small").state_dict())
    assert stored.mean == pytest.approx(IMAGENET.mean) and stored.std == pytest.approx(IMAGENET.std)
    assert stored_preprocessing(tiny(width=0.25).state_dict()) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no such weights file"),
        *((content, "not a PyTorch state_dict") for content in (b"", b"not tensors")),
        (b"\0\0\0\0\2\0\0\0" * 100, "not a PyTorch state_dict"),
        ("cut short", "not a PyTorch state_dict"),
        *((content, "not a PyTorch state_dict") for content in ([1, 2], {"step": 3}, {})),
    ],
)
def test_what_holds_no_tensors_is_refused(content, text, tmp_path):
    path = tmp_path / "encoder.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut short":
        torch.save(tiny(width=0.25).state_dict(), path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=rf"encoder\.pt: {text}"):
        read_tensors(path)


def test_an_encoder_is_filled_as_a_whole_or_not_at_all(tmp_path):
    reference = tiny(width=0.25)
    state = reference.state_dict()
    partial = {name: t for name, t in state.items() if name != "convs.6.norm.running_var"}
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(tiny(width=1.0).state_dict(), tmp_path / "wide.pt")
    torch.save(partial, tmp_path / "partial.pt")
    torch.save(old, tmp_path / "old.pt")
    for name, text in (
        ("wide.pt", r"wide\.pt: 0 of the encoder's 35 tensors match.* convs\.0\.conv\.weight"),
        ("partial.pt", r"34 of the encoder's 35 .* convs\.6\.norm\.running_var"),
    ):
        with pytest.raises(UserError, match=text):
            loaded(tmp_path / name)
    assert same_weights(loaded(tmp_path / "old.pt"), reference), "step counters may be absent"


def test_imagenet_comes_from_torchvisions_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.url
    cached = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    reference = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    torch.save({**reference, "denselayer1.norm.1.bias": torch.ones(1)}, cached)
    found = imagenet_tensors("mobilenet_v3_small")
    assert found.pop("denselayer1.norm1.bias") == 1, "an old file's name"
    assert found.keys() == reference.keys()
    assert all(torch.equal(found[name], reference[name]) for name in reference)


def test_imagenet_without_a_network_is_one_sentence(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("offline")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(UserError, match=r"imagenet could not be fetched.*offline.*set weights to"):
        imagenet_tensors("resnet18")
