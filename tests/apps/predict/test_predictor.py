"""Predictors: what validation finds, whatever the images come as and whatever file holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.checkpoints import CONF, make_predictor, write_checkpoint
from tests.exported_files import METADATA
from yolo.apps.export.exporting import export_model
from yolo.apps.predict import Prediction, Predictor
from yolo.apps.predict.predictor import TrainedNetwork
from yolo.apps.report.drawing import class_colour, draw_detections
from yolo.data.formats.shapes import SHAPES, open_shapes
from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel
from yolo.factory.data import build_dataset
from yolo.factory.initial_weights import read_config
from yolo.factory.scoring import build_scorer
from yolo.models.fusing import cast_weights
from yolo.records import Detections
from yolo.train.checkpoint import load_checkpoint
from yolo.train.distributed import join
from yolo.train.interruption import Interruption

each_neck = pytest.mark.parametrize("neck", ["yolov3", "yolov2", "yolov1", "yolov3_tiny"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.pt")


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return make_predictor(checkpoint, conf=CONF)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (70, 120, 3), dtype=np.uint8)


def same(one, other):
    """Every box of one has its like in the other, within the rounding of other kernels."""
    assert len(one) == len(other)
    boxes, others = one.boxes_xyxy_px[:, None], other.boxes_xyxy_px  # (N, 1, 4), (N, 4)
    size_px = (boxes[..., 2:] - boxes[..., :2]).amax(dim=2)  # (N, 1)
    near = (boxes - others).abs().amax(dim=2) < 0.02 + 1e-4 * size_px
    near &= (one.scores[:, None] - other.scores).abs() < 1e-4
    near &= one.labels[:, None] == other.labels
    assert near.any(dim=1).all() and near.any(dim=0).all()


@pytest.mark.parametrize("tta", [False, True])
@each_neck
def test_it_finds_what_validation_scores(neck, tta, tmp_path):
    """The evaluator runs the unfused network on batches of its own loader."""
    shapes = {"type": "shapes", "root": str(tmp_path), "split": "val", "images": 5}
    dataset = open_shapes(SHAPES, root=tmp_path, split="val", images=5)
    path = write_checkpoint(
        tmp_path / "best.pt",
        neck=neck,
        image_size=128,
        data={"train": shapes | {"split": "train"}, "val": shapes, "workers": 0},
        class_names=dataset.class_names,
        content={"category_ids": list(dataset.category_ids)},
    )
    content = load_checkpoint(path)
    config = read_config(path, content)
    scorer = build_scorer(path, content, config, join(["cpu"]), tta=tta)
    found = scorer.evaluator.find(scorer.model, Interruption())
    predictor = make_predictor(path, conf=CONF, tta=tta)
    paths = [dataset.image_path(i) for i in range(len(build_dataset(config, "val")))]
    assert len(found.scores) > 15
    for image_id, prediction in zip(dataset.annotations.image_ids, predictor(paths), strict=True):
        mine = found.image_ids == image_id
        scored = Detections(
            boxes_xyxy_px=torch.from_numpy(found.boxes_xyxy_px[mine]),
            scores=torch.from_numpy(found.scores[mine]),
            labels=torch.from_numpy(found.labels[mine]),
        )
        same(prediction.detections, scored)
        assert prediction.names == [dataset.class_names[i] for i in prediction.detections.labels]


def test_with_augmentation_a_mirrored_image_has_the_mirrored_boxes(checkpoint, predictor, image):
    augmented = make_predictor(checkpoint, conf=CONF, tta=True)
    (one,), (other,) = augmented(image), augmented(image[:, ::-1])
    left, top, right, bottom = other.detections.boxes_xyxy_px.unbind(dim=1)
    boxes = torch.stack((120 - right, top, 120 - left, bottom), dim=1)
    same(one.detections, replace(other.detections, boxes_xyxy_px=boxes))
    (plain,) = predictor(image)
    assert len(one.names) > 3 and one.detections.scores[0] >= plain.detections.scores[0]


def test_every_kind_of_image(predictor, image, tmp_path):
    (expected,) = predictor(image)
    assert len(expected.names) > 3 and expected.image_hw == (70, 120)
    assert expected.detections.boxes_xyxy_px[:, 2].max() <= 120
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    turned = Image.fromarray(np.rot90(image).copy())
    turned.getexif()[0x0112] = 6  # is to be turned by 90 degrees clockwise
    kinds = [path, str(path), Image.fromarray(image), turned, image[:, :, ::-1][:, :, ::-1]]
    for prediction in [*predictor(kinds), *predictor(np.stack([image, image]))]:
        same(prediction.detections, expected.detections)
        assert prediction.image_hw == (70, 120)
    grey = Image.fromarray(image[:, :, 0])
    same(predictor(grey)[0].detections, predictor(image[:, :, 0])[0].detections)
    assert len(predictor(Image.fromarray(image).convert("CMYK"))) == 1
    assert predictor([]) == []


def test_a_prediction_draws_itself_and_says_what_it_is(image, tmp_path):
    boxes = torch.tensor([[10.0, 20.0, 60.0, 50.0], [70.0, 30.0, 110.0, 60.0]])
    scores, labels = torch.tensor([0.912, 0.5]), torch.tensor([7, 2])
    found = Detections(boxes_xyxy_px=boxes, scores=scores, labels=labels)
    prediction = Prediction(found, ["big dog", "cat"], (70, 120))
    assert repr(prediction) == "Prediction(big dog 0.91, cat 0.50 in 120 x 70 px)"
    drawn, names = prediction.draw(image), dict(enumerate("abcdefgh")) | {7: "big dog", 2: "cat"}
    assert (drawn == draw_detections(image, found, names)).all()
    assert (drawn[40:60, 70] == class_colour(2)).all() and (drawn != image).any()
    prediction.save(tmp_path / "new" / "drawn.png", Image.fromarray(image))
    assert (np.array(Image.open(tmp_path / "new" / "drawn.png")) == drawn).all()
    none = replace(found, boxes_xyxy_px=boxes[:0], scores=scores[:0], labels=labels[:0])
    assert repr(Prediction(none, [], (70, 120))) == "Prediction(nothing in 120 x 70 px)"
    assert (Prediction(none, [], (70, 120)).draw(image) == image).all()
    many = Detections(boxes.repeat(4, 1), scores.repeat(4), labels.repeat(4))
    assert "cat 0.91 and 3 more in 120 x 70 px" in repr(Prediction(many, ["cat"] * 8, (70, 120)))


def test_a_damaged_pil_image(predictor, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be decoded"):
        predictor(Image.open(tmp_path / "cut.png"))


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_a_pil_image_without_a_known_white(predictor, kind):
    with pytest.raises(UserError, match="does not tell which value is white: convert it to 8 bits"):
        predictor(Image.fromarray(np.full((40, 60), 99, kind)))


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 3.5])
def test_what_is_no_image(predictor, bad):
    with pytest.raises(UserError, match=r"must be a uint8 array \(height, width, 3\) in RGB"):
        predictor([bad])


def test_thresholds_of_a_call_and_of_its_own(predictor, checkpoint, image):
    (many,), (few,) = predictor(image), predictor(image, conf=0.3)
    assert 0 < len(few.detections) < len(many.detections)
    same(few.detections, many.detections.above(0.3))
    assert len(predictor(image, iou=0.05)[0].names) < len(many.names)
    default = make_predictor(checkpoint)
    assert (default.postprocess.conf, default.postprocess.iou) == (0.25, 0.45)
    with pytest.raises(UserError, match="conf must be from 0 to 1, not 7"):
        predictor(image, conf=7.0)


OWN = [0.3, 0.1, 0.5, 0.2, 1.0, 0.15]


def above_own(predictions):
    """What reaches the confidence of its class, one by one."""
    for prediction in predictions:
        found = prediction.detections
        kept = [i for i, (_, score, label) in enumerate(found.rows()) if score >= OWN[label]]
        yield Detections(found.boxes_xyxy_px[kept], found.scores[kept], found.labels[kept])


def test_each_class_has_its_own_confidence_where_that_is_asked_for(image, checkpoint, tmp_path):
    path = write_checkpoint(tmp_path / "best.pt", content={"class_conf": OWN})
    predictor = make_predictor(path, conf="auto")
    (found,), many = predictor(image), make_predictor(path, conf=min(OWN))(image)
    (expected,) = above_own(many)
    same(found.detections, expected)
    assert 1 < len(found.names) < len(many[0].names) and predictor.postprocess.conf == 0.1
    assert found.names == [predictor.class_names[label] for label in found.detections.labels]
    same(predictor(image, conf=0.4)[0].detections, found.detections.above(0.4))
    assert make_predictor(path)(image)[0].names == make_predictor(checkpoint)(image)[0].names
    with pytest.raises(UserError, match=r"no confidences of its classes; .* --choose-conf puts"):
        make_predictor(checkpoint, conf="auto")


@pytest.mark.parametrize("options", [{}, {"nms": True}, {"nms": True, "conf": 0.2}])
def test_an_exported_file_has_the_confidences_of_its_classes(options, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = write_checkpoint(tmp_path / "a.pt", neck="yolov3_tiny", content={"class_conf": OWN})
    predictor = Predictor.from_checkpoint(export_model(path, ".onnx", **options), conf="auto")
    if "conf" in options:
        with pytest.raises(UserError, match=r"confidences from 0\.2 on"):
            predictor(images())
        return
    many = make_predictor(path, conf=min(OWN))(images())
    for one, other in zip(predictor(images()), above_own(many), strict=True):
        same(one.detections, other)
    assert 0 < sum(len(p.names) for p in predictor(images())) < sum(len(p.names) for p in many)


def test_one_label_per_box_unless_all_are_asked_for(image, tmp_path):
    path = write_checkpoint(tmp_path / "best.pt", evaluation={"labels": "all_classes"})
    (one,) = make_predictor(path, conf=CONF)(image)
    (all_,) = make_predictor(path, conf=CONF, labels="all_classes")(image)
    own = write_checkpoint(tmp_path / "own.pt", evaluation={"labels": "best_class"})
    same(one.detections, make_predictor(own, conf=CONF)(image)[0].detections)
    assert 3 < len(one.names) < len(all_.names)


@each_neck
def test_weights_cast_once_compute_what_autocast_computes(neck, tmp_path):
    path = write_checkpoint(tmp_path / "best.pt", neck=neck, image_size=128)
    network = make_predictor(path).network
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    cast = cast_weights(network.detector, torch.bfloat16)
    assert {p.dtype for p in cast.parameters()} == {torch.bfloat16}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, result = network.detector(images), cast(images)
    for one, other in zip(expected, result, strict=True):
        assert torch.equal(one, other)


def test_a_fused_network_in_the_fastest_format(checkpoint, image):
    network = Predictor.from_checkpoint(checkpoint, device="cpu").network
    assert isinstance(network, TrainedNetwork)
    assert not [m for m in network.detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert network.precision.name in ("fp32", "bf16") and "bf16" in network.precision.reason
    half = Predictor.from_checkpoint(checkpoint, device="cpu", precision="bf16")
    assert next(half.network.detector.neck.parameters()).dtype == torch.bfloat16
    assert len(half(image)[0].names) > 3


def test_what_cannot_be_opened(checkpoint, tmp_path):
    v1 = write_checkpoint(tmp_path / "v1.pt", neck="yolov1", image_size=128)
    with pytest.raises(UserError, match="at the 128 px alone that it was trained at, not at 192"):
        Predictor.from_checkpoint(v1, device="cpu", image_size_px=192)
    with pytest.raises(UserError, match="multiple of 32, not 100"):
        Predictor.from_checkpoint(checkpoint, device="cpu", image_size_px=100)
    with pytest.raises(UserError, match="no such"):
        Predictor.from_checkpoint(tmp_path / "none.onnx")


def suppressed(images):
    """What a file with the suppression inside gives for each of two images."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [10, 10, 20, 20]]).expand(2, 2, 4)
    scores, labels = torch.tensor([0.9, 0.2]).expand(2, 2), torch.tensor([1, 0]).expand(2, 2)
    return [boxes, scores, labels, torch.tensor([2, 2])]


def test_thresholds_inside_a_file_are_not_passed_over():
    metadata = replace(METADATA, nms=True, conf=0.1, iou=0.5)
    network = ExportedModel(Path("model.onnx"), metadata, suppressed)
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert [one.labels.tolist() for one in network.detect(images)] == [[1, 0]] * 2
    found = network.detect(images, Postprocess(conf=0.3, iou=0.5))
    assert [one.labels.tolist() for one in found] == [[1], [1]]
    for other in ({"conf": 0.05}, {"iou": 0.6}, {"labels": "all_classes"}):
        with pytest.raises(UserError, match=r"with IoU 0.5 and .* from 0.1 on, best_class"):
            network.detect(images, Postprocess(**{"conf": 0.3, "iou": 0.5, **other}))


def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((70, 120), (96, 40))]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "best.pt", neck="yolov3_tiny")


@pytest.mark.parametrize("options", [{}, {"nms": True, "conf": CONF}])
def test_an_exported_file_finds_what_its_checkpoint_finds(options, tiny, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    expected = make_predictor(tiny, conf=CONF)(images())
    assert min(len(one.names) for one in expected) > 2
    output = export_model(tiny, ".onnx", output=tmp_path / "model.onnx", **options)
    predictor = Predictor.from_checkpoint(output, conf=CONF)
    assert predictor.image_size_px == 96 and predictor.config["model"]["neck"]["type"]
    for one, other in zip(predictor(images()), expected, strict=True):
        same(one.detections, other.detections)
        assert (sorted(one.names), one.image_hw) == (sorted(other.names), other.image_hw)
    few = predictor(images()[0], conf=0.2)[0]
    same(few.detections, expected[0].detections.above(0.2))
    for own in ({"tta": True}, {"precision": "bf16"}):
        with pytest.raises(UserError, match="is fixed; --tta, --precision and --choose-conf are"):
            Predictor.from_checkpoint(output, **own)
    with pytest.raises(UserError, match="was exported only for 96 px, not for 128"):
        Predictor.from_checkpoint(output, image_size_px=128)


def test_the_labels_inside_a_file(tmp_path):
    """Those of the evaluation, whose figures it then has, or those asked for."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    evaluation = {"labels": "all_classes", "conf": CONF}
    path = write_checkpoint(tmp_path / "best.pt", neck="yolov3_tiny", evaluation=evaluation)
    for given, labels in ((None, "all_classes"), ("best_class", "best_class")):
        output = export_model(path, ".onnx", output=tmp_path / "a.onnx", nms=True, labels=given)
        found = Predictor.from_checkpoint(output, conf=CONF)(images())
        expected = make_predictor(path, conf=CONF, labels=labels)(images())
        for one, other in zip(found, expected, strict=True):
            same(one.detections, other.detections)
    with pytest.raises(UserError, match=r"from 0.1 on, best_class; ask for these"):
        Predictor.from_checkpoint(output, labels="all_classes")(images())


def test_an_exported_file_for_any_size(tiny, tmp_path):
    pytest.importorskip("onnxscript")
    output = export_model(tiny, ".onnx", output=tmp_path / "any.onnx", dynamic_size=True)
    one = Predictor.from_checkpoint(output, conf=CONF, image_size_px=160)
    other = make_predictor(tiny, conf=CONF, image_size_px=160)
    for found, wanted in zip(one(images()), other(images()), strict=True):
        same(found.detections, wanted.detections)


def test_somebody_elses_exported_file(tmp_path):
    module = torch.jit.script(torch.nn.Identity())
    module.save(str(tmp_path / "other.torchscript"))
    with pytest.raises(UserError, match=r"is a program.*--format onnx"):
        Predictor.from_checkpoint(tmp_path / "other.torchscript")
