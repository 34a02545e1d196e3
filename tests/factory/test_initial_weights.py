"""What a model starts from: checkpoints, torchvision's and Darknet's files, and their input."""

from pathlib import Path

import pytest
import torch

from tests.detectors import make_config, make_detector
from yolo.config.schema.classification import ClassifierConfig
from yolo.config.schema.model import ModelConfig
from yolo.darknet.weights import count_floats, write_weights
from yolo.errors import UserError
from yolo.factory.initial_weights import (
    check_weights,
    load_darknet_detector,
    load_darknet_encoder,
    load_initial_weights,
)
from yolo.models.detector import Classifier, list_detector, list_encoder
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


def setting_of(place, path, **init):
    """The argument of ``fill`` that names a file."""
    return {"encoder": path} if place == "encoder" else {"init": {"weights": path, **init}}


def input_of(model) -> Preprocessing:
    mean, std = (b.flatten().tolist() for b in (model.normalise.mean, model.normalise.std))
    return Preprocessing(tuple(round(m, 6) for m in mean), tuple(round(s, 6) for s in std))


def test_without_any_file_nothing_is_loaded():
    model = make_detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert fill(model) == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("classes", "lost"), [(4, ()), (7, HEADS)])
def test_all_is_taken_but_with_other_classes_the_heads_last_layer(trained, classes, lost):
    source, path = trained
    model, fresh = make_detector(classes=classes), make_detector(classes=classes)
    (report,) = fill(model, init={"weights": path, "min_matched": 0.5 if lost else 1.0})
    assert report.left == lost and len(report.filled) > 20 and (report.share < 1) == bool(lost)
    left = sum(fresh.get_submodule(name).weight.numel() + 3 * 12 for name in lost)
    assert report.parameters == sum(p.numel() for p in model.parameters())
    assert report.parameters_filled == report.parameters - left
    assert report.lines()[1:] == [f"  left at its initial values: {name}" for name in lost]
    wanted, initial = source.state_dict(), fresh.state_dict()
    for name, value in model.state_dict().items():
        new = name.rpartition(".")[0] in lost
        assert torch.equal(value, (initial if new else wanted)[name]), name


def test_too_small_a_share_is_an_error_with_both_numbers_and_the_layers(trained):
    _, path = trained
    model = make_detector("mobilenet_v3_small")
    with pytest.raises(UserError) as error:
        fill(model, init={"weights": path, "min_matched": 0.3})
    message = str(error.value)
    assert (
        message.startswith(f"model.init.weights: {path}: fits 0 of the model's ")
        and "\n" not in message
    )
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
    assert torch.equal(model.encoder.convs[0].conv.weight, source.encoder.convs[0].conv.weight)


# The input that the weights were trained with


ODD = Preprocessing((0.5,) * 3, (0.25,) * 3)


def odd_checkpoint(path, encoder):
    """A checkpoint whose input is neither the one nor the other."""
    model = Classifier(encoder=ENCODERS[encoder](), classes=2, preprocessing=ODD)
    save_checkpoint(path, {"model": model.state_dict(), "ema": None})
    return path


def test_darknets_weights_see_the_unit_range(tmp_path):
    model = make_detector()
    model.normalise.adopt(IMAGENET)
    path = tmp_path / "tiny.weights"
    write_weights(path, list_encoder(model.encoder))
    (report,) = fill(model, encoder=path)
    assert report.share == 1 and input_of(model) == UNIT_RANGE


@pytest.mark.parametrize("encoder", ["darknet_tiny", "mobilenet_v3_small"])
@pytest.mark.parametrize("place", ["encoder", "init"])
def test_a_checkpoint_brings_its_own_input(tmp_path, encoder, place):
    path = odd_checkpoint(tmp_path / "best.pt", encoder)
    model = make_detector(encoder)
    fill(model, encoder, **setting_of(place, path, min_matched=0.01))
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
    fetched = "yolo.factory.initial_weights.imagenet_tensors"
    monkeypatch.setattr(fetched, lambda name: reference.state_dict())
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
    path = tmp_path / "tiny.weights"
    write_weights(path, list_encoder(model.encoder))
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
    with pytest.raises(UserError) as error:
        fill(make_detector(), **setting_of(place, path))
    message = str(error.value)
    assert str(path) in message and "\n" not in message and len(message) > len(str(path)) + 20


@pytest.mark.parametrize("place", ["encoder", "init"])
def test_a_checkpoint_that_was_cut_short_is_one_sentence(trained, place):
    _, path = trained
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"best\.pt: not a (PyTorch|checkpoint)") as error:
        fill(make_detector(), **setting_of(place, path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.pt", "nowhere.weights"])
@pytest.mark.parametrize("place", ["encoder", "init"])
def test_a_missing_file_is_reported_with_its_key(tmp_path, place, name):
    advice = rf"^model\.{place}\.weights: .*{name}: no such weights file \("
    with pytest.raises(UserError, match=advice):
        fill(make_detector(), **setting_of(place, tmp_path / name))


# Files of Darknet

CLASSIFIER = 1000
HEADER_BYTES = 20


def narrow(classes=3):
    """Darknet's encoder, and 32 channels at both scales of the neck."""
    return make_detector("darknet_tiny", "yolov3_tiny", classes=classes, neck_width=0.1)


def filled_with(model, value):
    for tensor in model.state_dict().values():
        tensor.fill_(value)
    return model


def check_filled(model, report):
    """What the file had is 0.5, the rest still 2."""
    assert values(model, report.filled) == {0.5}
    assert values(model, report.left) == {2.0}


@pytest.fixture
def weights(tmp_path):
    """Writes a model's file, its numbers then all 0.5."""

    def write(model, *, name="a.weights", up_to=None, more=0):
        filled_with(model, 0.5)
        layers = list_detector(model) if hasattr(model, "encoder") else list_encoder(model)
        path = tmp_path / name
        write_weights(path, layers)
        content = path.read_bytes()
        end = len(content) if up_to is None else 20 + 4 * count_floats(layers, up_to=up_to)
        path.write_bytes(content[:end] + bytes(4 * more))
        return path

    return write


def values(model, names):
    state = model.state_dict()
    return {
        float(value)
        for name, tensor in state.items()
        if any(name.startswith(f"{layer}.") for layer in names)
        and not name.endswith("num_batches_tracked")
        for value in (tensor.min(), tensor.max())
    }


def test_a_whole_detector(weights):
    path = weights(narrow())
    detector = narrow()
    report = load_darknet_detector(detector, path)
    assert report.left == () and report.share == 1
    assert report.filled[0] == "encoder.convs.0"
    assert report.filled[-2:] == ("head.stride32.conv", "head.stride32.output")
    assert report.parameters == sum(p.numel() for p in detector.parameters())
    assert values(detector, report.filled) == {0.5}
    assert report.lines() == [
        f"{path} (DarknetTiny + YOLOv3TinyNeck with 3 classes): 13 of 13 layers, "
        f"100.0% of {report.parameters:,} parameters"
    ]


def test_another_number_of_classes_leaves_the_last_layers(weights):
    path = weights(narrow(classes=7))
    detector = filled_with(narrow(classes=3), 2)
    report = load_darknet_detector(detector, path)
    assert report.left == ("head.stride16.output", "head.stride32.output")
    check_filled(detector, report)
    left = sum(p.numel() for name, p in detector.named_parameters() if ".output." in name)
    assert report.parameters_filled == report.parameters - left
    assert "with 7 classes" in report.source
    assert report.lines()[1:] == [f"  left at its initial values: {n}" for n in report.left]


@pytest.mark.parametrize("more", [0, CLASSIFIER * (1024 + 1)])
def test_the_encoder_alone_or_as_a_classifier(more, weights):
    path = weights(ENCODERS["darknet_tiny"](), more=more)
    encoder = ENCODERS["darknet_tiny"]()
    report = load_darknet_encoder(encoder, path)
    assert report.filled == tuple(f"convs.{i}" for i in range(7))
    assert values(encoder, report.filled) == {0.5}
    assert ("1000 classes" in report.source) == bool(more)

    detector = filled_with(narrow(), 2)
    report = load_darknet_detector(detector, path)
    assert report.filled == tuple(f"encoder.convs.{i}" for i in range(7))
    check_filled(detector, report)


def test_the_first_layers_as_the_name_says(weights):
    """Of yolov3-tiny.cfg, 15 layers end with the head's 3x3 convolution at stride 32."""
    path = weights(narrow(), up_to=15, name="yolov3-tiny.conv.15")
    detector = filled_with(narrow(), 2)
    report = load_darknet_detector(detector, path)
    encoder = {f"encoder.convs.{i}" for i in range(7)}
    assert set(report.filled) == encoder | {"neck.stride32", "head.stride32.conv"}
    check_filled(detector, report)


@pytest.mark.parametrize(
    ("spoil", "there_are"),
    [
        (lambda content: content[:-4], "{fewer} floats;"),
        (lambda content: content[:-1], "{fewer} floats and a part of one more"),
        (lambda content: content + bytes(4), "{more} floats;"),
        (lambda content: content + bytes(1), "{whole} floats and a part of one more"),
        (lambda content: content[:20], "has 0 floats"),
        (lambda content: b"", "is empty"),
        (lambda content: b"no weights at all, but a line of text", "not a weights file"),
    ],
)
def test_a_spoilt_file_is_one_sentence(spoil, there_are, weights):
    """How many floats were expected for which model, and how many there are; nothing is filled."""
    path = weights(narrow())
    path.write_bytes(spoil(path.read_bytes()))
    detector = filled_with(narrow(), 2)
    whole = count_floats(list_detector(detector))
    with pytest.raises(UserError) as caught:
        load_darknet_detector(detector, path)
    text = str(caught.value)
    numbers = {"fewer": f"{whole - 1:,}", "whole": f"{whole:,}", "more": f"{whole + 1:,}"}
    assert str(path) in text
    assert there_are.format(**numbers) in text
    if "floats" in there_are:
        assert f"{whole:,} for DarknetTiny + YOLOv3TinyNeck with 3 classes" in text
    assert "\n" not in text
    assert {float(p.detach().min()) for p in detector.parameters()} == {2.0}


def test_a_detectors_file_is_not_an_encoders(weights):
    path = weights(narrow())
    with pytest.raises(UserError, match=r"6,298,480 for the encoder DarknetTiny .* model\.init"):
        load_darknet_encoder(ENCODERS["darknet_tiny"](), path)


@pytest.mark.parametrize("part", ["mobilenet_v3_small", "resnet18"])
def test_what_darknet_cannot_express(part, weights):
    path = weights(narrow())
    with pytest.raises(UserError, match="is not one that files of Darknet can hold") as caught:
        load_darknet_encoder(ENCODERS[part](), path)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError, match=r"a\.weights: the encoder"):
        load_darknet_detector(make_detector(part), path)


def test_darknet_has_no_decoupled_head(weights):
    path = weights(narrow())
    with pytest.raises(UserError, match=r"a\.weights: files of Darknet cannot hold a decoupled"):
        load_darknet_detector(make_detector(head={"decoupled": True}), path)


# Sizes of the published files; where 4 is added, the published header is 4 bytes shorter.
ENCODER_FILES = [
    ("darknet53", 41_645_640, "darknet53.conv.74", 162_482_580),
    ("darknet19", 20_856_776, "darknet19_448.conv.23", 79_327_120 + 4),
]
DETECTOR_FILES = [
    ("darknet53", "yolov3", 80, 248_007_048),
    ("darknet53", "yolov3_spp", 80, 252_209_544),
    ("darknet_tiny", "yolov3_tiny", 80, 35_434_956),
    ("darknet19", "yolov2", 80, 203_934_260 + 4),
    ("darknet19", "yolov2", 20, 202_704_260 + 4),
]


@pytest.mark.parametrize(("encoder", "classifier_floats", "name", "size"), ENCODER_FILES)
def test_sizes_of_darknets_encoders(encoder, classifier_floats, name, size):
    with torch.device("meta"):
        model = ENCODERS[encoder]()
    floats = count_floats(list_encoder(model))
    assert HEADER_BYTES + 4 * floats == size, name
    assert floats + CLASSIFIER * (model.out_channels[-1] + 1) == classifier_floats


@pytest.mark.parametrize(("encoder", "neck", "classes", "size"), DETECTOR_FILES)
def test_sizes_of_darknets_detectors(encoder, neck, classes, size):
    with torch.device("meta"):
        model = make_detector(encoder, neck, classes=classes, neck_width="paper")
    assert HEADER_BYTES + 4 * count_floats(list_detector(model)) == size


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(2, 2),
        torch.zeros(()).expand(10**6, 3),  # one number in the file
        torch.zeros(1, 3).expand(10**6, 3),
        torch.zeros(10**6, 3, device="meta"),  # none
        torch.sparse_coo_tensor(size=(10**6, 3), check_invariants=True),
    ],
)
def test_a_model_is_built_only_for_tensors_that_are_there(weight):
    def build():
        assert torch.get_default_device().type == "meta"
        return torch.nn.Linear(3, 10**6)

    tensors = {"weight": weight, "bias": torch.zeros(10**6)}
    with pytest.raises(UserError, match=r"a\.pt: its weights do not fit the model"):
        check_weights(build, Path("a.pt"), tensors)
