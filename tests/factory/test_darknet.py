"""Darknet's files as the start of our models: which file is which, and what a report contains."""

import pytest
import torch

from tests.detectors import make_detector
from yolo.darknet.weights import count_floats, write_weights
from yolo.errors import UserError
from yolo.factory.weights import load_darknet_detector, load_darknet_encoder
from yolo.models.detector import list_detector, list_encoder
from yolo.models.encoders import ENCODERS

CLASSIFIER = 1000
HEADER_BYTES = 20


def narrow(classes=3):
    """Darknet's encoder, and 32 channels at both scales of the neck."""
    return make_detector("darknet_tiny", "yolov3_tiny", classes=classes, neck_width=0.1)


def filled_with(model, value):
    for tensor in model.state_dict().values():
        tensor.fill_(value)
    return model


@pytest.fixture
def weights(tmp_path):
    """Writes a model's file, its numbers all 0.5."""

    def write(model, *, name="a.weights", up_to=None, more=0):
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
    path = weights(filled_with(narrow(), 0.5))
    detector = narrow()
    report = load_darknet_detector(detector, path)
    assert report.left == ()
    assert report.share == 1
    assert report.filled[0] == "encoder.convs.0"
    assert report.filled[-2:] == ("head.stride32.conv", "head.stride32.output")
    assert report.parameters == sum(p.numel() for p in detector.parameters())
    assert values(detector, report.filled) == {0.5}
    assert report.lines() == [
        f"{path} (DarknetTiny + YOLOv3TinyNeck with 3 classes): 13 of 13 layers, "
        f"100.0% of {report.parameters:,} parameters"
    ]


def test_another_number_of_classes_leaves_the_last_layers(weights):
    path = weights(filled_with(narrow(classes=7), 0.5))
    detector = filled_with(narrow(classes=3), 2)
    report = load_darknet_detector(detector, path)
    assert report.left == ("head.stride16.output", "head.stride32.output")
    assert values(detector, report.filled) == {0.5}
    assert values(detector, report.left) == {2.0}
    left = sum(p.numel() for name, p in detector.named_parameters() if ".output." in name)
    assert report.parameters_filled == report.parameters - left
    assert "with 7 classes" in report.source
    assert report.lines()[1:] == [
        "  left at its initial values: head.stride16.output",
        "  left at its initial values: head.stride32.output",
    ]


@pytest.mark.parametrize("more", [0, CLASSIFIER * (1024 + 1)])
def test_the_encoder_alone_or_as_a_classifier(more, weights):
    path = weights(filled_with(ENCODERS["darknet_tiny"](), 0.5), more=more)
    encoder = ENCODERS["darknet_tiny"]()
    report = load_darknet_encoder(encoder, path)
    assert report.filled == tuple(f"convs.{i}" for i in range(7))
    assert values(encoder, report.filled) == {0.5}
    assert ("1000 classes" in report.source) == bool(more)

    detector = filled_with(narrow(), 2)
    report = load_darknet_detector(detector, path)
    assert report.filled == tuple(f"encoder.convs.{i}" for i in range(7))
    assert values(detector, report.filled) == {0.5}
    assert values(detector, report.left) == {2.0}


def test_the_first_layers_as_the_name_says(weights):
    """Of yolov3-tiny.cfg, 15 layers end with the head's 3x3 convolution at stride 32."""
    path = weights(filled_with(narrow(), 0.5), up_to=15, name="yolov3-tiny.conv.15")
    detector = filled_with(narrow(), 2)
    report = load_darknet_detector(detector, path)
    assert set(report.filled) == {
        *(f"encoder.convs.{i}" for i in range(7)),
        *("neck.stride32", "head.stride32.conv"),
    }
    assert values(detector, report.filled) == {0.5}
    assert values(detector, report.left) == {2.0}


def spoil(path, kind):
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[:-4],
            "cut within a float": content[:-1],
            "too long": content + bytes(4),
            "a byte too long": content + bytes(1),
            "header only": content[:20],
            "empty": b"",
            "text": b"no weights at all, but a line of text",
        }[kind]
    )


@pytest.mark.parametrize(
    ("kind", "there_are"),
    [
        ("truncated", "{fewer} floats;"),
        ("cut within a float", "{fewer} floats and a part of one more"),
        ("too long", "{more} floats;"),
        ("a byte too long", "{whole} floats and a part of one more"),
        ("header only", "has 0 floats"),
        ("empty", "is empty"),
        ("text", "not a weights file"),
    ],
)
def test_a_spoilt_file_is_told_in_one_sentence(kind, there_are, weights):
    """How many floats were expected for which model, and how many there are; nothing is filled."""
    path = weights(filled_with(narrow(), 0.5))
    spoil(path, kind)
    detector = filled_with(narrow(), 2)
    whole = count_floats(list_detector(detector))
    with pytest.raises(UserError) as caught:
        load_darknet_detector(detector, path)
    text = str(caught.value)
    numbers = {"fewer": f"{whole - 1:,}", "whole": f"{whole:,}", "more": f"{whole + 1:,}"}
    assert str(path) in text
    assert there_are.format(**numbers) in text
    if kind not in ("empty", "text"):
        assert f"{whole:,} for DarknetTiny + YOLOv3TinyNeck with 3 classes" in text
    assert "\n" not in text
    assert {float(p.detach().min()) for p in detector.parameters()} == {2.0}


def test_a_detectors_file_is_not_an_encoders(weights):
    path = weights(filled_with(narrow(), 0.5))
    with pytest.raises(UserError, match=r"6,298,480 for the encoder DarknetTiny .* model\.init"):
        load_darknet_encoder(ENCODERS["darknet_tiny"](), path)


@pytest.mark.parametrize("part", ["mobilenet_v3_small", "resnet18"])
def test_what_darknet_cannot_express(part, weights):
    path = weights(filled_with(narrow(), 0.5))
    with pytest.raises(UserError, match="is not one that files of Darknet can hold") as caught:
        load_darknet_encoder(ENCODERS[part](), path)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError, match=r"a\.weights: the encoder"):
        load_darknet_detector(make_detector(part), path)


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
