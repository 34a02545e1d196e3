"""Twelve spoiled copies of coco-mini: the fault in one sentence, and exit code 1."""

import re

import pytest

from scripts.preflight import main
from tests.apps.preflight import spoiled
from tests.apps.preflight.spoiled import copy_coco_mini
from yolo.apps import preflight

CONFIG = "configs/yolov3/mobilenet_v3_small_coco.yaml"
CASES = {  # how: in which stage, with which sentence
    spoiled.ids_off_by_one: r'files: data\.train\.annotations: .*json: "annotations" entry \d+ '
    r'\(id \d+\): "category_id" is \d+, which "categories" does not define '
    r"\(and \d+ more entries: .*\)\.",
    spoiled.class_missing_from_train: r"classes: data\.train has no box of the class 'person' that "
    r"data\.val asks for: .*",
    spoiled.wrong_unit: r"boxes: data\.train: 100% of its boxes are smaller than 2 px on both "
    r"sides, so their unit is not the pixel .*",
    spoiled.swapped: r"boxes: data\.train: 3\d% of its boxes leave their images, but only 0% if "
    r"their numbers are read as \[y, x, height, width\]; .*",
    spoiled.truncated_jpeg: r"decoding: data\.val: the image .*/val/\d+\.jpg is cut off: .*",
    spoiled.duplicate_image_ids: r"files: data\.train\.annotations: .*train/annotations\.json: "
    r'"images" has the id \d+ more than once; ids must differ\.',
    spoiled.leaked_image: r"headers: the validation image .*/val/\d+\.jpg is in data\.train too, "
    r"as .*/train/leaked\.jpg: .*",
    spoiled.anchors_too_big: r"anchors: model\.head\.anchors: their average IoU with the boxes of "
    r"data\.train is 0\.\d\d at 416 px, below 0\.35: .*",
    spoiled.empty_json: r"files: data\.train\.annotations: the annotation file "
    r".*/train/annotations\.json is empty\.",
    spoiled.all_crowd: r"boxes: data\.train: all 739 boxes are ignored regions \(crowd or "
    r"difficult\), .*",
    spoiled.wrong_root: r"files: data\.val\.images: the image folder /nowhere/val2017 does not "
    r"exist; data\.val\.images=PATH names another place\.",
    spoiled.huge_image: r"headers: data\.train: .*/train/\d+\.jpg .*900000000 pixels.*",
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_the_fault_is_named(spoil, real_data, tmp_path, capsys):
    stage, _, sentence = CASES[spoil].partition(": ")
    overrides = copy_coco_mini(real_data / "coco-mini", tmp_path)
    overrides += spoil(tmp_path) or []
    assert main(["--config", CONFIG, "--gpu", "cpu", *overrides]) == 1
    written = capsys.readouterr()
    (line,) = written.err.splitlines()
    assert re.fullmatch(rf"FAULT in stage {stage}, after \d+ s: {sentence}", line)
    assert written.out.splitlines()[-1].strip()  # what was found on the way


@pytest.mark.slow
def test_the_untouched_copy_passes_as_far_as_the_data_goes(real_data, tmp_path, monkeypatch):
    """So that each fault above is the copy's own and not of copying."""
    monkeypatch.setattr(preflight, "STAGES", preflight.STAGES[:7])
    overrides = copy_coco_mini(real_data / "coco-mini", tmp_path)
    assert main(["--config", CONFIG, "--gpu", "cpu", *overrides]) == 0
