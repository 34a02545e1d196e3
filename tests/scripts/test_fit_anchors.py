"""scripts/fit_anchors.py as a user runs it, in process."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
import yaml

from scripts import fit_anchors
from tests.coco_files import write_coco
from yolo.config import REPOSITORY_ROOT, load_config

CONFIG = REPOSITORY_ROOT / "configs/yolov3/yolov3_tiny_coco.yaml"
SIX = [(6, 6), (20, 10), (10, 30), (60, 30), (100, 90), (200, 180)]


@pytest.fixture
def data(tmp_path):
    """Overrides for one image of twice the size, 20 boxes of each of six sizes and one crowd."""
    boxes = [(1, 0, [0, 0, 2 * w, 2 * h], False) for w, h in SIX * 20]
    crowd = (1, 0, [0, 0, 600, 600], True)
    picture = np.zeros((832, 832, 3), np.uint8)
    data = write_coco(tmp_path, {1: picture}, [*boxes, crowd], ["thing"])
    return [f"data.train.annotations={data['annotations']}", f"data.train.images={tmp_path}"]


def test_it_finds_the_sizes_and_prints_what_a_config_takes(data, tmp_path, capsys):
    output = tmp_path / "elbow.png"
    argv = ["--config", str(CONFIG), "-o", str(output), "--k-from", "2", "--k-to", "9", *data]
    assert fit_anchors.main(argv) == 0
    printed = capsys.readouterr().out
    assert "data.train: 120 boxes at 416 px" in printed  # the crowd is no box
    assert "fitted anchors: average IoU 1.000, recall at IoU 0.5 100.0%" in printed
    current = re.search(r"current anchors: average IoU (0\.\d+)", printed)
    assert current and float(current[1]) < 0.8
    assert printed.count("stride 16: ") == printed.count("stride 32: ") == 2
    assert "stride 16: 60 boxes\n    [6, 6]" in printed
    assert cv2.imread(str(output)) is not None
    pasted = tmp_path / "pasted.yaml"
    text = printed.partition("to paste:\n")[2]
    pasted.write_text(text + yaml.safe_dump({"extends": str(CONFIG)}))
    assert [*load_config(pasted).config.model.head.anchors] == SIX


def test_auto_has_no_current_anchors(data, tmp_path, capsys):
    output = tmp_path / "elbow.jpg"
    argv = ["--config", str(CONFIG), "-o", str(output), "model.head.anchors=auto", *data]
    assert fit_anchors.main(argv) == 0
    assert "current anchors" not in capsys.readouterr().out and output.is_file()


def test_each_mistake_is_one_sentence(data, capsys, usage_error):
    config = REPOSITORY_ROOT / "configs/yolov3/darknet53_coco.yaml"
    assert fit_anchors.main(["--config", str(config), *data]) == 0  # six sizes, filled up
    assert "fitted anchors: average IoU 1.000" in capsys.readouterr().out
    for name in ("yolov1/darknet_voc", "pretrain/shapes_darknet53"):
        config = REPOSITORY_ROOT / f"configs/{name}.yaml"
        assert "has no anchors" in usage_error(fit_anchors.main, "--config", str(config))
    assert "data.image_size" in usage_error(fit_anchors.main, "data.image_size=100")
    error = usage_error(fit_anchors.main, "--k-from", "5", "--k-to", "4")
    assert "--k-from and --k-to: must be at least 1" in error
    assert "'elbow' must end in .png or .jpg" in usage_error(fit_anchors.main, "-o", "elbow")
