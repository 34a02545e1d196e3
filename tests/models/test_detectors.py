"""Whole networks: detectors of every encoder and neck, and the classifier."""

import pytest
import torch

from tests.detection.losses.cases import make_targets
from tests.detectors import make_config, make_detector
from yolo.config import config_from_dict
from yolo.factory.detector import build_coder, build_loss
from yolo.models.detector import Classifier
from yolo.models.encoders import ENCODERS
from yolo.models.encoders.darknet import Darknet19, Darknet53
from yolo.models.layers import IMAGENET, UNIT_RANGE
from yolo.models.necks import NECKS
from yolo.models.summary import dry_run

SIZE_PX = 64
CLASSES = 3
RAW_SHAPES = {
    "yolov3": [(2, 3, n, n, 5 + CLASSES) for n in (8, 4, 2)],
    "yolov3_spp": [(2, 3, n, n, 5 + CLASSES) for n in (8, 4, 2)],
    "yolov3_tiny": [(2, 3, n, n, 5 + CLASSES) for n in (4, 2)],
    "yolov2": [(2, 5, 2, 2, 5 + CLASSES)],
    "yolov1": [(2, 1, 1, 2 * 5 + CLASSES)],
}
MODELS = [
    *((encoder, "yolov3", "scaled") for encoder in ENCODERS),
    *(("darknet_tiny", neck, "scaled") for neck in NECKS if neck != "yolov3"),
    *(("resnet18", neck, 0.25) for neck in NECKS),
    ("darknet_tiny", "yolov3", "paper"),
]


@pytest.mark.parametrize(("encoder", "neck", "width"), MODELS)
def test_every_encoder_and_every_neck_learns(encoder, neck, width):
    """Shapes, boxes, and a finite gradient of the loss for every parameter, under autocast."""
    config = make_config(encoder, neck, neck_width=width, image_size=SIZE_PX)
    model = make_detector(encoder, neck, classes=CLASSES, neck_width=width, image_size=SIZE_PX)
    images = torch.randint(0, 256, (2, 3, SIZE_PX, SIZE_PX), dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = model(images)
    assert [tuple(r.shape) for r in raw] == RAW_SHAPES[neck]
    coder = build_coder(config)
    boxes, scores = coder(raw)
    assert boxes.shape == (*scores.shape[:2], 4) and scores.shape[2] == CLASSES
    loss = build_loss(config, coder, ["a", "b", "c"])
    targets = make_targets([(0, 0.5, 0.5, 0.4, 0.3, 0), (1, 0.2, 0.7, 0.1, 0.2, 2)])
    sum(loss(raw, targets, 2).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


SWITCHES = [
    ("yolov3", {}, {"box": "ciou", "assignment": "iou_threshold", "rescore": True}),
    ("yolov3_tiny", {"scale_xy": 2.0}, {"assignment": "ratio", "object_scale": 2.0}),
    ("yolov3_tiny", {"scale_xy": 1.1}, {"assignment": "iou_threshold", "label_smoothing": 0.1}),
    ("yolov2", {"scale_xy": 2.0}, {"box": "giou", "assignment": "ratio", "anchor_ratio": 3.0}),
    ("yolov2", {}, {"assignment": "global", "class_scale": 2.0}),
    ("yolov3", {"decoupled": True}, {"assignment": "iou_threshold", "class_loss": "cross_entropy"}),
    ("yolov3_tiny", {"decoupled": True}, {"assignment": "iou_threshold", "box": "ciou"}),
]


@pytest.mark.parametrize(("neck", "head", "loss"), SWITCHES)
def test_the_switches_of_a_config_reach_the_loss(neck, head, loss):
    """A step learns something, and each setting of the loss changes what."""
    config = make_config("darknet_tiny", neck, head=head, image_size=SIZE_PX)
    model = make_detector("darknet_tiny", neck, classes=CLASSES, head=head, image_size=SIZE_PX)
    raw = model(torch.randint(0, 256, (2, 3, SIZE_PX, SIZE_PX), dtype=torch.uint8))
    assert [tuple(r.shape) for r in raw] == RAW_SHAPES[neck]
    truths = [(0, 0.5, 0.5, 0.4, 0.3, 0), (0, 0.51, 0.5, 0.4, 0.3, 1), (1, 0.2, 0.7, 0.1, 0.2, 2)]

    def totals(settings):
        plain = config.model_dump(mode="json")
        switched = config_from_dict(plain | {"loss": plain["loss"] | settings})
        coder = build_coder(switched)
        assert coder.scale_xy == head.get("scale_xy", 1)
        terms = build_loss(switched, coder, ["a", "b", "c"])(raw, make_targets(truths), 2)
        return torch.stack(list(terms.values())).sum()

    total = totals(loss)
    for name in loss:
        if name != "anchor_ratio":
            assert totals({k: v for k, v in loss.items() if k != name}) != total, name
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("neck", NECKS)
def test_one_class_and_one_image_without_a_truth(neck):
    config = make_config("darknet_tiny", neck, image_size=SIZE_PX)
    model = make_detector("darknet_tiny", neck, classes=1, image_size=SIZE_PX).eval()
    raw = model(torch.randint(0, 256, (1, 3, SIZE_PX, SIZE_PX), dtype=torch.uint8))
    coder = build_coder(config)
    boxes, scores = coder(raw)
    assert scores.shape == (1, boxes.shape[1], 1) and boxes.isfinite().all()
    loss, targets = build_loss(config, coder, ["a"]), make_targets([])
    terms = loss(raw, targets, 1)
    assert [name for name, term in terms.items() if term] == ["no_object"]
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert not loss.matches(raw, targets).owned.any()


def paper_detector(encoder, neck):
    return make_detector(encoder, neck, classes=80, neck_width="paper")


@pytest.mark.parametrize(
    ("build", "parameters", "numbers_in_the_file"),
    [
        (lambda: paper_detector("darknet53", "yolov3"), 61_949_149, 62_001_757),
        (lambda: paper_detector("darknet_tiny", "yolov3_tiny"), 8_852_366, 8_858_734),
        (lambda: paper_detector("darknet53", "yolov3_spp"), 62_998_749, 63_052_381),
        (lambda: Classifier(encoder=Darknet53(), classes=1000), 41_609_928, 41_645_640),
        (lambda: Classifier(encoder=Darknet19(), classes=1000), 20_842_376, 20_856_776),
    ],
)
def test_has_darknets_parameters_in_channels_last(build, parameters, numbers_in_the_file):
    """Those of the official files for COCO, and ImageNet; a file also holds running statistics."""
    with torch.device("meta"):
        model = build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    numbers = sum(
        t.numel()
        for name, t in model.state_dict().items()
        if t.is_floating_point() and not name.startswith("normalise.")
    )
    assert numbers == numbers_in_the_file
    assert dry_run(model, 64).parameters == parameters
    assert not any(
        p.dim() == 4 and not p.is_contiguous(memory_format=torch.channels_last)
        for p in model.parameters()
    )


def test_normalisation_is_the_encoders():
    darknet = make_detector("darknet_tiny")
    mobilenet = make_detector("mobilenet_v3_small")
    assert darknet.normalise.std.flatten().tolist() == [1, 1, 1]
    expected = torch.tensor([0.485, 0.456, 0.406])
    torch.testing.assert_close(mobilenet.normalise.mean.flatten(), expected)


@pytest.mark.parametrize("neck", [neck for neck in NECKS if neck != "yolov1"])
def test_any_multiple_of_32(neck):
    model = make_detector("darknet_tiny", neck).eval()
    with torch.no_grad():
        raw = model(torch.zeros(1, 3, 96, 160, dtype=torch.uint8))
    sizes = {8: (12, 20), 16: (6, 10), 32: (3, 5)}
    assert [tuple(r.shape[2:4]) for r in raw] == [sizes[s] for s in model.neck.strides_px]


def test_names_that_can_be_read():
    names = set(make_detector("darknet_tiny").state_dict())
    assert {"encoder.convs.0.conv.weight", "neck.stride32.0.norm.bias"} <= names
    assert {"neck.up16.0.conv.weight", "head.stride8.output.bias", "normalise.mean"} <= names


def test_its_answer_is_that_of_pooling_behind_the_last_layer():
    """As in Darknet-19: both are linear."""
    classifier = Classifier(encoder=ENCODERS["darknet_tiny"](width=0.25), classes=7).eval()
    images = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        answer = classifier(images)
        stride32 = classifier.encoder(classifier.normalise(images))[2]
        after = classifier.head(stride32).mean(dim=(2, 3))
    assert answer.shape == (2, 7)
    torch.testing.assert_close(answer, after, rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training_alone():
    encoder = ENCODERS["darknet_tiny"](width=0.25).eval()
    classifier = Classifier(encoder=encoder, classes=3, dropout=0.5).eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(classifier(images), classifier(images))
        classifier.dropout.train()
        assert not torch.equal(classifier(images), classifier(images))


def test_the_input_is_what_the_encoder_expects_unless_given_otherwise():
    encoder = ENCODERS["darknet_tiny"](width=0.25)
    assert encoder.preprocessing == UNIT_RANGE
    assert Classifier(encoder=encoder, classes=3).normalise.mean.flatten().tolist() == [0, 0, 0]
    given = Classifier(encoder=encoder, classes=3, preprocessing=IMAGENET)
    torch.testing.assert_close(given.normalise.std.flatten(), torch.tensor(IMAGENET.std))
