"""scripts/convert_dataset.py as a user runs it, in process."""

from __future__ import annotations

import pytest
import yaml

from scripts import convert_dataset
from tests.data.conftest import WriteCoco, write_coco  # noqa: F401 - a fixture
from yolo.apps.convert.conversion import FORMATS
from yolo.config import REPOSITORY_ROOT, config_from_dict, load_config
from yolo.factory.data import build_dataset

QUICKSTART = REPOSITORY_ROOT / "configs/quickstart.yaml"


@pytest.fixture
def inline(write_coco: WriteCoco) -> str:  # noqa: F811
    json_path, images = write_coco()
    return f"{{type: coco, annotations: {json_path}, images: {images}}}"


@pytest.mark.parametrize("to", FORMATS)
def test_the_printed_section_reads_the_result(to, inline, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["--data", inline, "--to", to, "--output", str(out), "--split", "val"]
    assert convert_dataset.main(argv) == 0
    printed, _, section = capsys.readouterr().out.partition("\ndata:\n")
    boxes, left_out = (3, 0) if FORMATS[to].ignored else (2, 1)
    assert printed.startswith(f"{out}: 3 images, {boxes} boxes as {to}\n")
    assert ("left out: 1 ignored regions" in printed) == bool(left_out)
    data = load_config(QUICKSTART).data
    data["data"] |= yaml.safe_load(f"data:\n{section}")["data"]
    dataset = build_dataset(config_from_dict(data), "val")
    assert dataset.class_names == ("cat", "dog", "tree")
    assert dataset.annotations.box_counts().sum() == boxes
    assert convert_dataset.main(argv) == 1
    assert "exists already, and nothing is overwritten" in capsys.readouterr().err


def test_a_split_of_a_config(tmp_path, capsys):
    output = tmp_path / "out"
    argv = ["--config", str(QUICKSTART), "--split", "val", "--to", "csv_boxes"]
    more = [f"data.val.root={tmp_path / 'shapes'}", "data.val.images=4", "data.limit=3"]
    assert convert_dataset.main([*argv, "--images", "keep", "--output", str(output), *more]) == 0
    assert "3 images, " in capsys.readouterr().out
    lines = (output / "boxes.csv").read_text().splitlines()
    assert lines[0] == "image,xmin,ymin,xmax,ymax,class"
    assert len({line.split(",")[0] for line in lines[1:]}) == 3


def test_classes_can_be_ordered(inline, tmp_path, capsys):
    argv = ["--data", inline, "--to", "yolo_text", "--output", str(tmp_path / "out")]
    assert convert_dataset.main([*argv, "data.class_names=[tree,dog,cat]"]) == 0
    assert 'class_names: ["tree", "dog", "cat"]' in capsys.readouterr().out
    assert (tmp_path / "out/labels/c.txt").read_text().startswith("0 ")  # the tree


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("{type: coco, annotations: a.json}", "command line: data.train.images: missing: must be"),
        ("{type: cocoa}", "command line: data.train.type: 'cocoa': must be one of 'coco', "),
        ("{type: [", "command line: data.train: line 1, column 9: is not YAML"),
    ],
)
def test_inline_data_is_validated_as_a_config(data, sentence, usage_error):
    argv = ["--data", data, "--to", "voc", "--output", "out"]
    assert sentence in usage_error(convert_dataset.main, *argv)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--to", "voc"], "required: --output"),
        (["--to", "tfrecord", "--output", "o"], "invalid choice: 'tfrecord'"),
        (["--to", "voc", "--output", "o"], "give one of --config and --data"),
        (["--to", "voc", "--output", "o", "--data", "{}", "--config", "c"], "give one of --config"),
    ],
)
def test_bad_usage(argv, sentence, usage_error):
    assert sentence in usage_error(convert_dataset.main, *argv)


def test_a_classifier_has_no_boxes(usage_error):
    config = REPOSITORY_ROOT / "configs/pretrain/shapes_darknet53.yaml"
    argv = ["--config", str(config), "--to", "voc", "--output", "out"]
    assert "task: 'classify': must be 'detect'" in usage_error(convert_dataset.main, *argv)


def test_the_formats_on_offer_are_those_that_can_be_written():
    assert tuple(FORMATS) == convert_dataset.FORMATS
