"""Exported files whose graph is not what their metadata say."""

import pytest
import torch

from tests.exported_files import IMAGES, OUTPUTS, SUPPRESSED, write_onnx
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("nms", [False, True])
def test_a_sound_file(tmp_path, nms):
    model = ExportedModel.open(write_onnx(tmp_path / "a.onnx", nms=nms))
    found = model.detect(torch.zeros(3, 3, 64, 64, dtype=torch.uint8))
    assert [set(one.scores.tolist()) for one in found] == [{0.5}] * 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"outputs": "float[batch, 2, 4] boxes"}, r"has boxes float .* where its metadata say"),
        (
            {"outputs": "float[batch, 2, 3] scores, float[batch, 2, 4] boxes"},
            "its graph has scores",
        ),
        ({"outputs": SUPPRESSED}, "its graph has boxes"),
        ({"outputs": OUTPUTS, "nms": True}, "its graph has boxes"),
        ({"class_names": ("a",) * 9, "category_ids": tuple(range(9))}, r"scores float .*None, 9\)"),
        ({"image_size_px": 128}, r"images uint8 \(None, 3, 128, 128\)"),
        ({"float_input": True}, "images float"),
        ({"images": IMAGES.replace("images", "pixels")}, "its graph has |cannot open it"),
        ({"images": IMAGES.replace("3,", "4,")}, r"'batch', 4, 64, 64\)"),
        ({"images": IMAGES.replace("batch", "1") + ", float[1] more"}, "more float"),
        ({"entries": {"yolo.image_size_px": "20480"}}, r"image_size_px: .* 2048"),
    ],
)
def test_a_graph_of_other_arrays_is_refused_when_it_is_opened(tmp_path, changes, text):
    path = write_onnx(tmp_path / "a.onnx", **changes)
    with pytest.raises(UserError, match=f"a.onnx: .*{text}") as error:
        ExportedModel.open(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("label", [3, -1, 10**12])
def test_a_class_without_a_name_is_refused(tmp_path, label):
    model = ExportedModel.open(write_onnx(tmp_path / "a.onnx", nms=True, label=label))
    with pytest.raises(UserError, match=r"a\.onnx: finds classes that it has no name for"):
        model.detect(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
