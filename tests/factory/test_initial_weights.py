"""What a training starts from: encoders' files, whole detectors, and their preprocessing."""

import numpy as np
import pytest
import torch

from tests.detectors import make_config, make_detector
from yolo.config.schema.classification import ClassifierConfig
from yolo.config.schema.model import ModelConfig
from yolo.errors import UserError
from yolo.factory.weights import load_initial_weights
from yolo.models.detector import Classifier
from yolo.models.encoders import ENCODERS
from yolo.models.layers import IMAGENET, UNIT_RANGE, Preprocessing
from yolo.train.checkpoint import save_checkpoint

HEADS = ("head.stride8.output", "head.stride16.output", "head.stride32.output")


@pytest.fixture
def trained(tmp_path):
    """A detector of 4 classes as if it had been trained, and its checkpoint."""
    model = make_detector(classes=4)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    path = tmp_path / "best.pt"
    save_checkpoint(path, {"model": model.state_dict(), "ema": None})
    return model, path


def fill(model, encoder_type="darknet_tiny", *, encoder=None, init=None, preprocessing=None):
    """The three settings that decide, of a detector."""
    config = make_config(encoder_type).model.model_dump()
    config["encoder"]["weights"] = encoder
    config.update(init=init, preprocessing=preprocessing)
    return load_initial_weights(model, ModelConfig.model_validate(config))


def input_of(model) -> Preprocessing:
    mean, std = (b.flatten().tolist() for b in (model.normalise.mean, model.normalise.std))
    return Preprocessing(tuple(round(m, 6) for m in mean), tuple(round(s, 6) for s in std))


def test_without_any_file_nothing_is_loaded():
    model = make_detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert fill(model) == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_with_other_classes_all_but_the_heads_last_layer_is_taken(trained):
    source, path = trained
    model, fresh = make_detector(classes=7), make_detector(classes=7)
    (report,) = fill(model, init={"weights": path})
    assert report.left == HEADS and len(report.filled) > 20
    left = sum(fresh.get_submodule(name).weight.numel() + 3 * 12 for name in HEADS)
    assert report.parameters == sum(p.numel() for p in model.parameters())
    assert report.parameters_filled == report.parameters - left
    assert report.lines()[1:] == [f"  left at its initial values: {name}" for name in HEADS]
    wanted, initial = source.state_dict(), fresh.state_dict()
    for name, value in model.state_dict().items():
        new = name.rpartition(".")[0] in HEADS
        assert torch.equal(value, (initial if new else wanted)[name]), name


def test_with_as_many_classes_all_is_taken(trained):
    source, path = trained
    model = make_detector(classes=4)
    (report,) = fill(model, init={"weights": path, "min_matched": 1.0})
    assert report.left == () and report.share == 1
    wanted = source.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_too_small_a_share_is_an_error_with_both_numbers_and_the_layers(trained):
    _, path = trained
    model = make_detector("mobilenet_v3_small")
    with pytest.raises(UserError) as error:
        fill(model, init={"weights": path, "min_matched": 0.3})
    message = str(error.value)
    assert message.startswith(f"{path}: fits 0 of the model's ") and "\n" not in message
    count = f"{sum(p.numel() for p in model.parameters()):,}"
    assert f"{count} parameters (0.0%), and model.init.min_matched asks for 30.0%" in message
    assert "what did not fit: encoder.features.0, encoder.features.1.block.0, " in message
    assert "more layers" in message


def test_the_encoder_is_taken_from_a_checkpoint(trained):
    source, path = trained
    model, fresh = make_detector(classes=7), make_detector(classes=7)
    (report,) = fill(model, encoder=path)
    assert report.share == 1 and report.filled == tuple(f"convs.{i}" for i in range(7))
    for name, value in model.state_dict().items():
        loaded = name.startswith(("encoder.", "normalise."))
        assert torch.equal(value, (source if loaded else fresh).state_dict()[name]), name


def test_init_overrides_the_encoders_own_file(trained, tmp_path):
    source, path = trained
    other = ENCODERS["darknet_tiny"]()
    torch.save(other.state_dict(), tmp_path / "other.pt")
    model = make_detector(classes=7)
    reports = fill(model, encoder=tmp_path / "other.pt", init={"weights": path})
    assert len(reports) == 2
    ours, theirs = model.encoder.convs[0].conv.weight, source.encoder.convs[0].conv.weight
    assert torch.equal(ours, theirs)


# The input that the weights were trained with


def darknet_file(path, encoder):
    """A .weights file of noise for the encoder."""
    floats = sum(t.numel() for t in encoder.state_dict().values() if t.is_floating_point())
    header = np.array([0, 2, 0], "<i4").tobytes() + np.array([0], "<i8").tobytes()
    noise = np.random.default_rng(0).uniform(0.5, 1.5, floats).astype("<f4")
    path.write_bytes(header + noise.tobytes())
    return path


ODD = Preprocessing((0.5,) * 3, (0.25,) * 3)


def odd_checkpoint(path, encoder):
    """A checkpoint whose input is neither the one nor the other."""
    model = Classifier(encoder=ENCODERS[encoder](), classes=2, preprocessing=ODD)
    save_checkpoint(path, {"model": model.state_dict(), "ema": None})
    return path


def test_darknets_weights_see_the_unit_range(tmp_path):
    model = make_detector()
    model.normalise.adopt(IMAGENET)
    path = darknet_file(tmp_path / "tiny.weights", model.encoder)
    (report,) = fill(model, encoder=path)
    assert report.share == 1 and input_of(model) == UNIT_RANGE


@pytest.mark.parametrize("encoder", ["darknet_tiny", "mobilenet_v3_small"])
@pytest.mark.parametrize("place", ["encoder", "init"])
def test_a_checkpoint_brings_its_own_input(tmp_path, encoder, place):
    path = odd_checkpoint(tmp_path / "best.pt", encoder)
    model = make_detector(encoder)
    settings = {"encoder": path, "init": {"weights": path, "min_matched": 0.01}}
    fill(model, encoder, **{place: settings[place]})
    assert input_of(model) == ODD


def test_a_setting_overrides_the_weights(tmp_path):
    path = odd_checkpoint(tmp_path / "best.pt", "darknet_tiny")
    model = make_detector()
    model.normalise.adopt(IMAGENET)  # as the building of the model leaves it
    fill(model, encoder=path, preprocessing="imagenet")
    assert input_of(model) == IMAGENET


def test_tensors_without_a_word_about_it_leave_the_encoders_default(tmp_path):
    encoder = ENCODERS["mobilenet_v3_small"]()
    torch.save(encoder.state_dict(), tmp_path / "torchvision.pth")
    model = make_detector("mobilenet_v3_small")
    fill(model, "mobilenet_v3_small", encoder=tmp_path / "torchvision.pth")
    assert input_of(model) == IMAGENET


def test_torchvisions_download(monkeypatch):
    reference = ENCODERS["resnet18"]()
    monkeypatch.setattr(
        "yolo.factory.weights.imagenet_tensors", lambda name: reference.state_dict()
    )
    model = make_detector("resnet18")
    model.normalise.adopt(UNIT_RANGE)
    (report,) = fill(model, "resnet18", encoder="imagenet")
    assert report.source == "torchvision's ImageNet weights of resnet18" and report.share == 1
    assert input_of(model) == IMAGENET
    assert torch.equal(model.encoder.conv1.weight, reference.conv1.weight)


# Classifiers


def classifier_config(**settings):
    return ClassifierConfig.model_validate({"encoder": {"type": "darknet_tiny"}, **settings})


def test_a_classifier_starts_from_a_detectors_encoder(trained):
    source, path = trained
    model = Classifier(encoder=ENCODERS["darknet_tiny"](), classes=5)
    config = classifier_config(encoder={"type": "darknet_tiny", "weights": path})
    (report,) = load_initial_weights(model, config)
    assert report.share == 1
    assert torch.equal(model.encoder.convs[6].conv.weight, source.encoder.convs[6].conv.weight)


def test_a_classifiers_init_is_no_file_of_darknets(tmp_path):
    model = Classifier(encoder=ENCODERS["darknet_tiny"](), classes=5)
    path = darknet_file(tmp_path / "tiny.weights", model.encoder)
    with pytest.raises(UserError, match=r"of a classifier must be a checkpoint of this project"):
        load_initial_weights(model, classifier_config(init={"weights": path}))


# Files that are none


GARBAGE = {
    "text": b"Not Found\n",
    "empty": b"",
    "zeros": bytes(5000),
    "zip": b"PK\x03\x04" + bytes(500),
    "html": b"<!DOCTYPE html><html><body>404</body></html>" * 20,
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("place", ["encoder", "init"])
@pytest.mark.parametrize("name", ["best.pt", "yolov3.weights"])
def test_garbage_is_one_sentence(tmp_path, kind, place, name):
    path = tmp_path / name
    path.write_bytes(GARBAGE[kind])
    setting = {"encoder": path, "init": {"weights": path}}[place]
    with pytest.raises(UserError) as error:
        fill(make_detector(), **{place: setting})
    message = str(error.value)
    assert str(path) in message and "\n" not in message and len(message) > len(str(path)) + 20


@pytest.mark.parametrize("place", ["encoder", "init"])
def test_a_checkpoint_that_was_cut_short_is_one_sentence(trained, place):
    _, path = trained
    path.write_bytes(path.read_bytes()[:-5000])
    setting = {"encoder": path, "init": {"weights": path}}[place]
    with pytest.raises(UserError, match=r"best\.pt: not a (PyTorch|checkpoint)") as error:
        fill(make_detector(), **{place: setting})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.pt", "nowhere.weights"])
@pytest.mark.parametrize("place", ["encoder", "init"])
def test_a_missing_file_is_told_with_its_setting(tmp_path, place, name):
    setting = {"encoder": tmp_path / name, "init": {"weights": tmp_path / name}}[place]
    key = {"encoder": "model.encoder.weights", "init": "model.init.weights"}[place]
    with pytest.raises(UserError, match=rf"{name}: no such weights file; check {key} "):
        fill(make_detector(), **{place: setting})
