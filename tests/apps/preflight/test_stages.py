"""scripts/preflight.py in process on made data: what passes, and faults the slow tests lack."""

import json
import re

import cv2
import numpy as np
import pytest

from scripts import preflight
from tests.apps.preflight.made_data import change, overrides, write_split
from tests.apps.report.pages import Page
from tests.data.test_images import save_turned
from yolo.apps import preflight as stages
from yolo.apps.convert.conversion import convert
from yolo.apps.preflight import images, overfit, speed, truth
from yolo.config import REPOSITORY_ROOT
from yolo.data.formats.coco import CocoDataset


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Data without a fault, and stages that hurry."""
    for split in ("train", "val"):
        write_split(tmp_path, split)
    for name in ("LOADER_SECONDS", "NETWORK_SECONDS", "TOGETHER_SECONDS"):
        monkeypatch.setattr(speed, name, 0.3)
    monkeypatch.setattr(overfit, "MOST_STEPS", overfit.JUDGED_STEPS)
    monkeypatch.setattr(overfit, "OVERFIT_SECONDS", 600)  # a busy machine shall judge, too
    return tmp_path


@pytest.fixture
def only_data(monkeypatch):
    """Leave out the stages that compute."""
    monkeypatch.setattr(stages, "STAGES", stages.STAGES[:7])


def run(root, *more):
    return preflight.main(["--gpu", "cpu", *overrides(root), *more])


def fault_of(root, capsys, *more):
    """The stage and the sentence."""
    assert run(root, *more) == 1
    (line,) = capsys.readouterr().err.splitlines()
    head, _, sentence = line.partition(": ")
    return head.split(",")[0].removeprefix("FAULT in stage "), sentence


def test_sound_data_passes_all_stages(root, capsys):
    page, report = root / "preflight.html", root / "preflight.json"
    assert run(root, "--html", str(page), "--json", str(report), "training.steps=1000") == 0
    written = capsys.readouterr()
    assert written.err == ""
    *_, verdict, json_there, page_there = written.out.splitlines()
    assert verdict.startswith("nothing that would spoil the run was found")
    assert (json_there, page_there) == (f"written: {report}", f"written: {page}")
    by_name = {stage["name"]: stage for stage in json.loads(report.read_text())["stages"]}
    names = "files headers boxes classes anchors decoding truth overfitting speed"
    assert list(by_name) == names.split()
    assert by_name["classes"]["figures"]["classes"][1] == {
        "label": 1, "id": 2, "name": "dog", "train_boxes": 8, "train_images": 8, "val_boxes": 8,
        "val_images": 8,
    }  # fmt: skip
    assert by_name["truth"]["figures"]["truth"]["AP"] == pytest.approx(1.0, abs=1e-9)
    losses = by_name["overfitting"]["figures"]["losses"]
    assert losses[-1] < losses[0]
    seen = Page(page.read_text())  # a page with nothing from outside
    assert len(seen.pictures) == 1 and seen.tags.count("svg") >= 5
    assert "Nothing that would spoil the run was found." in seen.texts


def test_a_class_that_val_alone_defines(root, capsys):
    def add_class(data):
        data["categories"].append({"id": 3, "name": "hot dog"})
        data["annotations"][0]["category_id"] = 3

    change(root, "val", add_class)
    stage, sentence = fault_of(root, capsys)
    assert stage == "files"
    assert sentence.startswith("data.train does not define the class 'hot dog' that data.val asks")


def test_a_validation_set_without_a_figure(root, capsys):
    stage, sentence = fault_of(root, capsys, "evaluation.monitor=APl")
    assert stage == "truth"
    assert sentence.startswith("data.val has nothing to find that APl could be measured on, so tha")
    change(root, "val", lambda data: data.update(annotations=[]))
    fault = ("boxes", "data.val: none of its 8 images has a box.")
    assert fault_of(root, capsys, "evaluation.monitor=APl") == fault


def clip_one_and_double_another(data):
    data["annotations"][0]["bbox"] = [70, 10, 12, 20]
    data["annotations"].append({**data["annotations"][3], "id": 99})


@pytest.mark.parametrize(
    ("split", "edit", "warnings"),
    [
        (  # the reverse: a class that train alone has
            "val",
            lambda data: data.update(annotations=data["annotations"][::2]),
            ["1 of 2 classes in data.train but not in data.val"],
        ),
        (  # a careless box of a small data set: a fifth of one of the 16 of val lies outside
            "val",
            lambda data: data["annotations"][0].update(bbox=[72, 10, 10, 20]),
            ["clipped to the image"],
        ),
        (
            "train",
            clip_one_and_double_another,
            [
                "1.png: annotation 1, bbox [70, 10, 12, 20], clipped to the image of 80x60 px",
                "data.train, nearly equal to another of their class: 2.png: dog",
            ],
        ),
    ],
)
def test_what_only_warns(root, only_data, capsys, split, edit, warnings):
    change(root, split, edit)
    assert run(root) == 0
    printed = capsys.readouterr().out
    assert all(warning in printed for warning in warnings)


BAD_ANCHORS = [[6, 40], [40, 6], [8, 50], [50, 8], [24, 24], [12, 60], [60, 12], [16, 64], [64, 16]]
ONLY_WARN = {
    "training.batch_size: 12 is more than the 8 images of": "training.batch_size=12",
    "2,002 steps of 4 images are 1,001 epochs of the 8 images of": "training.steps=2002",
    "and fitted ones have 0.87: set model.head.anchors": f"model.head.anchors={BAD_ANCHORS}",
}


@pytest.mark.parametrize("warning", ONLY_WARN)
def test_settings_that_only_warn(root, only_data, capsys, warning):
    assert run(root, "training.steps=200", "training.micro_batch_size=2", ONLY_WARN[warning]) == 0
    printed = capsys.readouterr().out
    assert [one for one in ONLY_WARN if re.search(f"  warning: .*{one}", printed)] == [warning]


def test_images_of_nearly_one_colour_are_a_warning(root, only_data, capsys):
    for number in (2, 5):
        path = root / "train" / f"{number}.png"
        cv2.imwrite(str(path), cv2.imread(str(path)) // 20)  # as 12 bits taken for 16
    assert run(root) == 0
    printed = capsys.readouterr().out
    assert "data.train: 2 of 8 images are nearly of one colour, first " in printed
    assert "data.val: " not in printed.partition("decoding")[2]


def test_an_annotated_size_that_is_not_the_files(root, capsys):
    change(root, "train", lambda data: data["images"][2].update(width=800, height=600))
    stage, sentence = fault_of(root, capsys)
    assert stage == "headers"
    assert "3.png is 80x60 px large, but its annotations are for 800x600 px" in sentence


def test_missing_images_are_counted_even_in_a_sample(root, capsys, monkeypatch):
    monkeypatch.setattr(images, "HEADER_SECONDS", 0.0)  # a sample of one
    (root / "val" / "5.png").unlink()
    sentence = f"data.val: the image {root / 'val' / '5.png'} does not exist."
    assert fault_of(root, capsys) == ("headers", sentence)


def test_copies_within_a_set_are_a_warning_and_leaks_a_fault(root, capsys):
    (root / "train" / "2.png").write_bytes((root / "train" / "1.png").read_bytes())
    (root / "val" / "8.png").write_bytes((root / "train" / "3.png").read_bytes())
    assert run(root) == 1
    written = capsys.readouterr()
    assert "data.train has 1 images more than once" in written.out
    assert f"the validation image {root / 'val' / '8.png'} is in data.train too" in written.err


def test_a_broken_image_may_be_skipped(root, only_data, capsys):
    content = (root / "train" / "4.png").read_bytes()
    (root / "train" / "4.png").write_bytes(content[:200])
    stage, sentence = fault_of(root, capsys)
    assert stage == "decoding" and "train/4.png" in sentence
    stage, sentence = fault_of(root, capsys, "data.on_error=skip")  # 1 of 8 is more than 1 %
    assert stage == "decoding"
    assert run(root, "data.on_error=skip", "data.max_bad_share=0.2") == 0


def test_a_learning_rate_that_blows_up(root, capsys):
    stage, sentence = fault_of(root, capsys, "training.optimizer.learning_rate=1e9")
    assert stage == "overfitting" and "lower training.optimizer.learning_rate" in sentence


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["training.steps=none"], "training.steps"),
        (["--config", str(REPOSITORY_ROOT / "configs/pretrain/shapes_darknet53.yaml")], "task"),
        (["--html", "page.pdf"], ""),
        (["--gpu", "cpu,cpu"], ""),
    ],
)
def test_config_errors_exit_with_2_before_torch(argv, part, usage_error):
    assert part in usage_error(preflight.main, *argv)


def test_a_rare_object_is_among_the_images_that_are_scored(root, only_data, capsys, monkeypatch):
    """Without one of them there would be no figure, as with two of eight images."""
    monkeypatch.setattr(truth, "MOST_IMAGES", 2)
    boxes = json.loads((root / "val/annotations.json").read_text())["annotations"]
    for few in (3, 8):
        kept = [box for box in boxes if box["image_id"] == few]
        change(root, "val", lambda data, kept=kept: data.update(annotations=kept))
        assert run(root) == 0
        assert "AP 1.0000 on 2 images" in capsys.readouterr().out


def test_empty_files_that_are_skipped_are_no_copies(root, only_data, capsys):
    for split in ("train", "val"):
        (root / split / "4.png").write_bytes(b"")
    assert run(root, "data.on_error=skip", "data.max_bad_share=0.2") == 0
    assert "more than once" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_the_verdict_is_printed_where_the_report_cannot_be_written(root, capsys, option):
    (root / "file").write_text("")
    (root / "train/annotations.json").write_text("")
    assert run(root, option, str(root / "file" / "report.html")) == 1
    fault, error = capsys.readouterr().err.splitlines()
    assert fault.startswith("FAULT in stage files") and fault.count("data.train.annotations: ") == 1
    assert error.startswith(f"error: {root / 'file' / 'report.html'}: the ")


def test_silent_faults_of_text_labels_are_warnings(root, capsys, monkeypatch):
    """Labels that were deleted, other names beside the images, and turned images."""
    monkeypatch.setattr(stages, "STAGES", stages.STAGES[:2])
    texts = []
    for split in ("train", "val"):
        annotations, folder = root / split / "annotations.json", root / "text" / split
        dataset = CocoDataset(annotations=annotations, images=root / split)
        convert(dataset, to="yolo_text", output=folder, images="copy", split=split)
        paths = f"images: {folder}/images, labels: {folder}/labels, names: {folder}/names.yaml"
        texts.append(f"data.{split}={{type: yolo_text, {paths}}}")
    folder = root / "text/train"
    for label in sorted((folder / "labels").iterdir())[:3]:
        label.unlink()
    (folder / "data.yaml").write_text("names: [fox, owl]")
    turned = sorted((folder / "images").iterdir())[0]
    save_turned(turned, np.zeros((60, 80, 3), np.uint8), 3)
    assert run(root, *texts) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    for line, text in zip(
        warnings,
        (
            r"data\.train: 3 images without a text file, which count as background \(",
            r"data\.train: .*data\.yaml names the classes fox, owl, but here they are cat, dog",
            r"data\.train: 1 images turned upright by EXIF: the page of --html shows whether",
        ),
        strict=True,
    ):
        assert re.match(rf"  warning: {text}", line)
