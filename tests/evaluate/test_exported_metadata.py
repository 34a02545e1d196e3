"""The metadata in and out of an exported file."""

from dataclasses import replace

import pytest

from tests import exported_files
from yolo.errors import UserError
from yolo.evaluate.exported import ExportMetadata

METADATA = replace(
    exported_files.METADATA,
    class_names=("cat", "traffic light", "Löwe"),
    category_ids=(1, "2", 90),
    conf=0.005,
    labels="all_classes",
    config={"model": {"head": {"anchors": [[1.5, 2.0]]}}, "seed": 0, "nothing": None},
    precision="fp16",
    dynamic_size=True,
    nms=True,
    class_conf=(0.25, 0.1, 1.0),
)


WRONG = {
    "class_names": ("[]", "3", "[1, 2, 3]", '"cat"'),
    "category_ids": ("[true, 2, 3]", "[1.5, 2, 3]", "null"),
    "image_size_px": ("20480", "0", "-32", "100", '"416"', "416.5", "true", "1e9"),
    "fill_colour_rgb": ("[1, 2]", "[1, 2, 256]", "[-1, 0, 0]"),
    "conf": ("NaN", "2", '"0.1"', "null"),
    "iou": ("-0.1", "Infinity"),
    "max_detections": ("0", "1e30", "100000000000"),
    "max_candidates": ("-1",),
    "labels": ('"other"',),
    "generation": ("3",),
    "config": ("[]", '"x"'),
    "step": ('"seven"', "-1", "1.5"),
    "precision": ('"fp37"',),
    "dynamic_size": ("1", '"yes"'),
    "nms": ("null",),
    "float_input": ("2",),
    "suppression": ('"matrix"', "2"),
    "class_conf": ("null", "0.5", "[2, 0, 0]", "[0, 0, NaN]", '["0.5", 0, 0]'),
}


def test_round_trip():
    metadata = METADATA.to_metadata()
    assert metadata["yolo.class_names"] == '["cat", "traffic light", "L\\u00f6we"]'
    assert all(isinstance(value, str) for value in metadata.values())
    assert ExportMetadata.from_metadata({**metadata, "foreign": "x"}, owner="a.onnx") == METADATA


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: {}, "not a file that export.py wrote"),
        (lambda m: m | {"yolo.version": "2"}, "export version 2; this code reads 1"),
        (lambda m: m | {"yolo.conf": "{"}, "its metadata is damaged"),
        (lambda m: {k: v for k, v in m.items() if k != "yolo.iou"}, "damaged"),
        *(
            (lambda m, name=name, value=value: m | {f"yolo.{name}": value}, rf"damaged \({name}")
            for name, values in WRONG.items()
            for value in values
        ),
        (lambda m: m | {"yolo.category_ids": "[1, 2]"}, "not one category id for each class name"),
        (lambda m: m | {"yolo.category_ids": "[1, 2, 2]"}, "not one category id"),
        (lambda m: m | {"yolo.class_conf": "[0.5, 0.5]"}, "not one confidence for each class"),
        (lambda m: m | {"yolo.config": "[" * 100_000}, "damaged"),
    ],
)
def test_what_is_no_metadata_of_ours(change, text):
    with pytest.raises(UserError, match=f"a.onnx: .*{text}"):
        ExportMetadata.from_metadata(change(METADATA.to_metadata()), owner="a.onnx")


def test_a_file_of_before_has_no_confidences_of_classes_and_a_greedy_suppression():
    metadata = METADATA.to_metadata()
    del metadata["yolo.class_conf"], metadata["yolo.suppression"]
    found = ExportMetadata.from_metadata(metadata, owner="a.onnx")
    assert found == replace(METADATA, class_conf=())
