"""Exports of small detectors through the gate, and exports that it refuses."""

import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.checkpoints import write_checkpoint
from yolo.apps.export import graph as graphs
from yolo.apps.export.check import check_batches
from yolo.apps.export.exporting import export_model, load_trained_detector
from yolo.config import REPOSITORY_ROOT, config_from_dict
from yolo.config.load import portable
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel, need
from yolo.factory.detector import build_coder, build_postprocess

sys.path.insert(0, str(REPOSITORY_ROOT))
import export

NAMES = ["cat", "dog", "traffic light"]
SIZES = {"yolov1": 128}
SIZE_PX = 64


def write(folder, neck="yolov3_tiny", *, encoder="darknet_tiny", head=None, **evaluation):
    """A detector with trained-looking statistics and scores of every size."""
    settings = {"width": 0.25} if encoder == "darknet_tiny" else {}
    return write_checkpoint(
        folder / "best.pt",
        neck=neck,
        image_size=SIZES.get(neck, SIZE_PX),
        class_names=NAMES,
        content={"category_ids": [1, "2", 90]},
        fill=make_lively,
        model={"encoder": {"type": encoder, **settings}} | ({"head": head} if head else {}),
        evaluation={"conf": 0.05, "iou": 0.4, "max_detections": 20, **evaluation},
    )


def make_lively(detector, _image_size):
    generator = torch.Generator().manual_seed(3)
    for layer in detector.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
    for name, parameter in detector.head.named_parameters():
        if name.endswith("output.weight"):
            parameter.data *= 15
        elif name.endswith("output.bias"):
            parameter.data *= 0.3
            parameter.data += torch.rand(parameter.shape, generator=generator) * 0.3


def other_images(size_px, batch=3):
    generator = torch.Generator().manual_seed(9)
    coarse = torch.rand(batch, 3, size_px // 8, size_px // 8, generator=generator)
    return (nn.functional.interpolate(coarse, size_px, mode="bilinear") * 255).byte()


@torch.inference_mode()
def check_other_images(path, exported, size_px):
    """On images that the gate has not seen."""
    _, config, detector = load_trained_detector(path)
    images = other_images(size_px)
    expected = build_postprocess(config)(*build_coder(config)(detector(images)))
    found = exported.detect(images)
    assert sum(map(len, found)) > 5
    for one, other in zip(expected, found, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(one.boxes_xyxy_px, other.boxes_xyxy_px, rtol=1e-4, atol=0.05)
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)


ONNX = [
    ("yolov3_tiny", {"dynamic_size": True, "nms": True}, {}),
    ("yolov2", {"nms": True}, {"labels": "all_classes", "max_candidates": 15}),
    ("yolov1", {"float_input": True}, {}),
]
MORE_ONNX = [
    ("yolov3", {"dynamic_size": True}, {}),
    ("yolov3_spp", {"dynamic_size": True, "nms": True}, {"labels": "all_classes"}),
    ("yolov2", {"dynamic_size": True, "fp16": True, "nms": True}, {}),
    ("yolov1", {"nms": True}, {}),
    ("yolov1", {"fp16": True}, {}),
]


@pytest.mark.parametrize(
    ("neck", "options", "evaluation"),
    [*ONNX, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_ONNX)],
)
def test_onnx_passes_the_gate(neck, options, evaluation, tmp_path):
    path = write(tmp_path, neck, **evaluation)
    lines = []
    file = export_model(path, ".onnx", log=lines.append, **options)
    assert sorted(tmp_path.iterdir()) == [file, path] == [tmp_path / "best.onnx", path]
    exported = ExportedModel.open(file)
    metadata = exported.metadata
    assert (metadata.class_names, metadata.category_ids) == (tuple(NAMES), (1, "2", 90))
    config = config_from_dict(torch.load(path, weights_only=True)["config"])
    assert metadata.config == portable(config.model_dump())
    assert str(config.data.train.images) == "/nowhere" and b'"/nowhere' not in file.read_bytes()
    assert str(REPOSITORY_ROOT).encode() not in file.read_bytes()
    for option in ("nms", "dynamic_size"):
        assert getattr(metadata, option) == options.get(option, False)
    assert f"{10 if metadata.dynamic_size else 5} images" in lines[0]
    size_px = metadata.image_size_px
    if metadata.precision == "fp32":
        check_other_images(path, exported, size_px + 96 if metadata.dynamic_size else size_px)
    if not metadata.dynamic_size:
        with pytest.raises(UserError, match=f"takes images of {size_px} x {size_px} px, not of"):
            exported.detect(other_images(size_px + 32))
    check_standard(file, metadata)


def check_standard(path, metadata):
    """Only operators of the ONNX standard; batch (and sizes) by name; fp16 halves the weights."""
    onnx = need("onnx")
    model = onnx.load(path)
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    (images,) = model.graph.input
    axes = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    size = ["height", "width"] if metadata.dynamic_size else [metadata.image_size_px] * 2
    assert axes == ["batch", 3, *size]
    kind = onnx.TensorProto.FLOAT if metadata.float_input else onnx.TensorProto.UINT8
    assert images.type.tensor_type.elem_type == kind
    kinds = {t.data_type for t in model.graph.initializer if len(t.dims) == 4 and min(t.dims) > 0}
    if metadata.precision == "fp16":
        assert onnx.TensorProto.FLOAT16 in kinds
    names = [output.name for output in model.graph.output]
    assert names == (
        ["boxes", "scores", "labels", "counts"] if metadata.nms else ["boxes", "scores"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["mobilenet_v3_small", "resnet18", "darknet19"])
def test_every_kind_of_encoder_passes_the_gate(encoder, tmp_path):
    path = write(tmp_path, "yolov3", encoder=encoder)
    check_other_images(path, ExportedModel.open(export_model(path, ".onnx", nms=True)), SIZE_PX)


@pytest.mark.parametrize("neck", ["yolov3", "yolov3_spp", "yolov3_tiny", "yolov2", "yolov1"])
def test_torchscript_passes_the_gate(neck, tmp_path):
    path = write(tmp_path, neck)
    dynamic = neck != "yolov1"
    file = export_model(path, ".torchscript", dynamic_size=dynamic)
    exported = graphs.open_torchscript(file)
    assert exported.metadata.generation == load_trained_detector(path)[1].model.head.type
    size_px = exported.metadata.image_size_px
    check_other_images(path, exported, size_px + 32 * dynamic)


def test_a_soft_suppression_follows_an_export_and_is_not_inside(tmp_path):
    path = write(tmp_path, nms="soft")
    exported = ExportedModel.open(export_model(path, ".onnx"))
    assert exported.metadata.postprocess().suppression == "soft"
    check_other_images(path, exported, SIZE_PX)
    greedy = replace(exported.metadata.postprocess(), suppression="greedy")
    images = other_images(SIZE_PX)
    assert (
        exported.detect(images, greedy)[0].scores.tolist()
        != exported.detect(images)[0].scores.tolist()
    )
    with pytest.raises(UserError, match=r"evaluation\.nms is soft, ONNX's is not; leave out --nms"):
        export_model(path, ".onnx", nms=True)


@pytest.mark.parametrize("head", [{"scale_xy": 2.0}, {"decoupled": True}])
def test_another_head_passes_the_gate(head, tmp_path):
    path = write(tmp_path, head={"type": "yolov3_tiny", **head})
    check_other_images(path, ExportedModel.open(export_model(path, ".onnx", nms=True)), SIZE_PX)
    file = export_model(path, ".torchscript")
    check_other_images(path, graphs.open_torchscript(file), SIZE_PX)


def test_torchscript_in_fp16(tmp_path):
    path = write(tmp_path)
    file = export_model(path, ".torchscript")
    options = {"fp16": True, "float_input": True, "output": tmp_path / "h.torchscript"}
    half = export_model(path, ".torchscript", **options)
    assert graphs.open_torchscript(half).metadata.precision == "fp16"
    assert half.stat().st_size < 0.6 * file.stat().st_size
    check_other_images(path, graphs.open_torchscript(file), SIZE_PX)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A checkpoint, and its graph, which takes seconds to trace, again and again."""
    folder = tmp_path_factory.mktemp("traced")
    path = write(folder, max_detections=300)
    known = {}

    def trace(graph, metadata, original=graphs.trace_onnx):
        if metadata.nms not in known:
            known[metadata.nms] = original(graph, metadata)
        return copy.deepcopy(known[metadata.nms])

    return path, trace


@pytest.fixture
def cached(traced, monkeypatch):
    path, trace = traced
    monkeypatch.setattr(graphs, "trace_onnx", trace)
    return path


def wrong_weight(model):
    """One filter of one layer is 1% too strong."""
    from onnx import numpy_helper

    weights = [t for t in model.graph.initializer if len(t.dims) == 4 and t.dims[2] == 3]
    values = numpy_helper.to_array(weights[2]).copy()
    values[0] *= 1.01
    weights[2].CopyFrom(numpy_helper.from_array(values, weights[2].name))


def no_sigmoid(model):
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Tanh"


def break_suppression(change):
    def broken(model, postprocess, original=graphs.add_suppression):
        original(model, replace(postprocess, **change))

    return broken


@pytest.fixture
def refusal(cached, monkeypatch, capsys):
    """What export.py prints that refuses, where something else makes a part of the graph."""

    def run(name, maker):
        with monkeypatch.context() as patch:
            patch.setattr(graphs, name, maker)
            assert export.main([str(cached), "--format", "onnx", "--nms"]) == 1
        error = capsys.readouterr().err
        assert f"{cached}: the export is refused, for it does not find what PyTorch" in error
        assert len(error.splitlines()) == 1
        return error

    return run


def test_a_broken_graph_is_refused_and_leaves_no_file(cached, refusal):
    for damage in (wrong_weight, no_sigmoid):

        def broken(graph, metadata, damage=damage, original=graphs.trace_onnx):
            model = original(graph, metadata)
            damage(model)
            return model

        assert "instead of" in refusal("trace_onnx", broken)
        assert list(cached.parent.iterdir()) == [cached]


def test_a_broken_suppression_is_refused(cached, refusal):
    """The boxes and scores are right; what is made of them is not."""
    file = cached.with_suffix(".onnx")
    file.write_text("the file of before")
    changes = [
        ({"iou": 0.9}, "PyTorch has not"),
        ({"conf": 0.01}, "PyTorch has not"),
        ({"iou": 0.05}, "lacks the detection"),
        ({"max_detections": 3}, "lacks the detection"),
        ({"labels": "all_classes"}, "image 0"),
    ]
    for change, text in changes:
        assert text in refusal("add_suppression", break_suppression(change))
        assert sorted(cached.parent.iterdir()) == [file, cached]
    assert file.read_text() == "the file of before"
    file.unlink()


def test_thresholds_images_and_output(cached, tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    generator = np.random.default_rng(0)
    for index, (height, width) in enumerate(((50, 90), (200, 30), (64, 64), (10, 10), (70, 60))):
        image = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.blur(image, (5, 5)))
    output = tmp_path / "detector.onnx"
    argv = [str(cached), "--format", "onnx", "--nms", "--output", str(output)]
    assert export.main([*argv, "--conf", "0.3", "--iou", "0.6", "--images", str(folder)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n"
    assert "on 6 images boxes differ" in printed.err
    metadata = ExportedModel.open(output).metadata
    assert (metadata.conf, metadata.iou, metadata.max_detections) == (0.3, 0.6, 300)
    for path, text in ((tmp_path / "no", "there is no such folder"), (tmp_path, "holds no image")):
        assert export.main([*argv, "--images", str(path)]) == 1
        assert text in capsys.readouterr().err


ONE_SIZE = "works at the 128 px alone that it was trained at"
REFUSED = [
    ("yolov1", "--format onnx --dynamic-size", ONE_SIZE),
    ("yolov1", "--format onnx --image-size 192", ONE_SIZE),
    ("yolov1", "--format torchscript --dynamic-size", ONE_SIZE),
    ("yolov1", "--format torchscript --image-size 192", ONE_SIZE),
    ("yolov3_tiny", "--format onnx --output a.bin", "must end in .onnx"),
]


@pytest.mark.parametrize(("neck", "argv", "text"), REFUSED)
def test_what_the_file_cannot_have_is_refused(neck, argv, text, tmp_path, capsys):
    path = write(tmp_path, neck)
    assert export.main([str(path), *argv.split()]) == 1
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(UserError, match="need the package onnxscript, which is not installed"):
        need("onnxscript")
    with pytest.raises(AssertionError):
        need("subprocess")  # nothing else is imported by a name


def test_files_of_others(tmp_path):
    parser, foreign = need("onnx").parser, tmp_path / "foreign.onnx"
    text = (
        '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) {y = Identity(x)}'
    )
    foreign.write_bytes(parser.parse_model(text).SerializeToString())
    with pytest.raises(UserError, match=r"foreign.onnx: not a file that export.py wrote"):
        ExportedModel.open(foreign)
    (tmp_path / "text.onnx").write_text("text")
    for name, text in (
        ("text.onnx", "ONNX Runtime cannot open it"),
        ("own.torchscript", "is a program, which could do anything here; export .*--format onnx"),
        ("OWN.TorchScript", "is a program"),
        ("nothing.onnx", "there is no such file"),
        ("text.tflite", "must end in .onnx"),
    ):
        with pytest.raises(UserError, match=text):
            ExportedModel.open(tmp_path / name)


def test_the_images_of_the_check():
    sizes_hw = [(64, 64), (96, 160)]
    batches = check_batches(None, sizes_hw)
    expected = [(count, 3, *size_hw) for size_hw in sizes_hw for count in (1, 4)]
    assert [tuple(batch.shape) for batch in batches] == expected
    assert batches[0].flatten(2).unique(dim=2).shape[2] == 1, "an empty scene"
    assert all(image.float().std() > 5 for image in batches[1])
