"""Twelve spoiled copies of coco-mini: the fault in one sentence, and exit code 1."""

import re

import pytest

from scripts.preflight import main
from tests.apps.preflight import spoiled
from tests.apps.preflight.spoiled import Copy

CONFIG = "configs/yolov3/mobilenet_v3_small_coco.yaml"
TENFOLD = (
    "[[100,130],[160,300],[330,230],[300,610],[620,450],[590,1190],[1160,900],[1560,1980],"
    "[3730,3260]]"
)


CASES = {  # how, in which stage, with which sentence, with which overrides
    "ids off by one": (
        spoiled.ids_off_by_one,
        "files",
        r'data\.train: .*train\.json: "annotations" entry \d+ \(id \d+\): "category_id" is \d+, '
        r'which "categories" does not define\.',
    ),
    "a class of val missing from train": (
        spoiled.class_missing_from_train,
        "classes",
        r"data\.train has no box of the class 'person' that data\.val asks for: .*",
    ),
    "boxes in the wrong unit": (
        spoiled.wrong_unit,
        "boxes",
        r"data\.train: 100% of its boxes are smaller than 2 px on both sides, so their unit is not "
        r"the pixel .*",
    ),
    "x and y swapped": (
        spoiled.swapped,
        "boxes",
        r"data\.train: 3\d% of its boxes leave their images, but only 0% if their numbers are read "
        r"as \[y, x, height, width\]; .*",
    ),
    "a truncated JPEG": (
        spoiled.truncated_jpeg,
        "decoding",
        r"data\.val: the image .*/val/\d+\.jpg is cut off: .*",
    ),
    "duplicate image ids": (
        spoiled.duplicate_image_ids,
        "files",
        r'data\.train: .*train\.json: "images" has the id \d+ more than once; ids must differ\.',
    ),
    "a val image in train": (
        spoiled.leaked_image,
        "headers",
        r"the validation image .*/val/\d+\.jpg is in data\.train too, as .*/train/leaked\.jpg: .*",
    ),
    "anchors ten times too big": (
        spoiled.nothing,
        "anchors",
        r"model\.head\.anchors: their average IoU with the boxes of data\.train is 0\.\d\d at 416 "
        r"px, below 0\.35: .*",
        f"model.head.anchors={TENFOLD}",
    ),
    "empty json": (
        spoiled.empty_json,
        "files",
        r"data\.train: the annotation file .*/train\.json is empty\.",
    ),
    "all boxes crowd": (
        spoiled.all_crowd,
        "boxes",
        r"data\.train: all 739 boxes are ignored regions \(crowd or difficult\), .*",
    ),
    "wrong root": (
        spoiled.nothing,
        "files",
        r"data\.val: the image folder /nowhere/val2017 does not exist\.",
        "data.val.images=/nowhere/val2017",
    ),
    "a 30,000 x 30,000 px image": (
        spoiled.huge_image,
        "headers",
        r"data\.train: .*/train/\d+\.jpg .*900000000 pixels.*",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_named(name, real_data, tmp_path, capsys):
    spoil, stage, sentence, *overrides = CASES[name]
    copy = Copy.make(real_data / "coco-mini", tmp_path / "copy")
    spoil(copy)
    argv = ["--config", CONFIG, "--gpu", "cpu", *copy.overrides(), *overrides]
    assert main(argv) == 1
    written = capsys.readouterr()
    (line,) = written.err.splitlines()
    assert re.fullmatch(rf"FAULT in stage {stage}, after \d+ s: {sentence}", line)
    assert written.out.splitlines()[-1].strip()  # what was found on the way


@pytest.mark.slow
def test_the_untouched_copy_passes_as_far_as_the_data_goes(real_data, tmp_path, monkeypatch):
    """So that each fault above is the copy's own and not of copying."""
    from yolo.apps import preflight

    monkeypatch.setattr(preflight, "STAGES", preflight.STAGES[:7])
    copy = Copy.make(real_data / "coco-mini", tmp_path / "copy")
    assert main(["--config", CONFIG, "--gpu", "cpu", *copy.overrides()]) == 0
