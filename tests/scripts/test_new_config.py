"""scripts/new_config.py as a user runs it, in process, on folders as tools export them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import new_config
from yolo.config import load_config
from yolo.data.formats.detection import DetectionDataset
from yolo.factory.data import build_dataset

NAMES = ("cat", "big dog")
SIZE_WH = (64, 32)
TRUTH = {  # split -> image -> (label, xyxy in pixels)
    "train": {"a": [(0, (8, 4, 24, 20))], "b": [(1, (0, 0, 64, 32)), (0, (16, 8, 48, 24))]},
    "val": {"c": [(1, (32, 16, 48, 32))]},
}


def draw(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE_WH, "grey").save(folder / f"{name}.png")


def write_text_files(images: Path, labels: Path, split: str) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    width, height = SIZE_WH
    for name, objects in TRUTH[split].items():
        draw(images, name)
        lines = [
            f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} "
            f"{(y2 - y1) / height}\n"
            for label, (x1, y1, x2, y2) in objects
        ]
        (labels / f"{name}.txt").write_text("".join(lines))


def roboflow(root: Path) -> None:
    """With its "../train/images" that is meant from the folder itself."""
    for split, called in (("train", "train"), ("val", "valid")):
        write_text_files(root / called / "images", root / called / "labels", split)
    names = "nc: 2\nnames: ['cat', 'big dog']\n"
    (root / "data.yaml").write_text(f"train: ../train/images\nval: ../valid/images\n{names}")


def ultralytics(root: Path) -> None:
    for split in TRUTH:
        write_text_files(root / "images" / split, root / "labels" / split, split)
    names = "names:\n  0: cat\n  1: big dog\n"
    paths = "path: /content/elsewhere\ntrain: images/train\nval: images/val\ntest:\n"
    (root / "data.yaml").write_text(paths + names)


def coco_json(file: Path, split: str) -> None:
    annotations, images = [], []
    for number, (name, objects) in enumerate(TRUTH[split].items()):
        size = {"width": SIZE_WH[0], "height": SIZE_WH[1]}
        images.append({"id": number, "file_name": f"{name}.png", **size})
        for label, (x1, y1, x2, y2) in objects:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            ids = {"id": len(annotations), "image_id": number, "category_id": label + 1}
            annotations.append({**ids, **box, "iscrowd": 0})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(NAMES)]
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content))


def coco(root: Path) -> None:
    """As COCO itself lies, beside annotations of other kinds."""
    for split, folder in (("train", "train2017"), ("val", "val2017")):
        coco_json(root / f"annotations/instances_{folder}.json", split)
        coco_json(root / f"annotations/person_keypoints_{folder}.json", split)
        for name in TRUTH[split]:
            draw(root / folder, name)
    captions = {"images": [], "annotations": [{"caption": "a cat"}]}
    (root / "annotations/captions_val2017.json").write_text(json.dumps(captions))


def roboflow_coco(root: Path) -> None:
    """A json in each folder of images."""
    for split, folder in (("train", "train"), ("val", "valid")):
        coco_json(root / folder / "_annotations.coco.json", split)
        for name in TRUTH[split]:
            draw(root / folder, name)


def voc(root: Path) -> None:
    for split, images in TRUTH.items():
        lists = root / "ImageSets/Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
        for name, objects in images.items():
            draw(root / "JPEGImages", name)
            found = "".join(
                f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x1 + 1}</xmin>"
                f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                for label, (x1, y1, x2, y2) in objects
            )
            file = root / f"Annotations/{name}.xml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"<annotation><filename>{name}.png</filename>{found}</annotation>")


def truth_of(dataset: DetectionDataset) -> dict[str, list]:
    """As ``TRUTH`` has it, by class name: VOC orders them by alphabet."""
    found = {}
    for index in range(len(dataset)):
        sample = dataset.load(index)
        names = [dataset.class_names[label] for label in sample.labels]
        stem = Path(dataset.image_path(index)).stem
        found[stem] = sorted(zip(names, np.rint(sample.boxes_xyxy_px).tolist(), strict=True))
    return found


@pytest.mark.parametrize("make", [roboflow, ultralytics, coco, roboflow_coco, voc])
def test_a_folder_becomes_a_config_with_the_same_boxes(
    make: Callable[[Path], None], tmp_path: Path, capsys
) -> None:
    root, output = tmp_path / "my data", tmp_path / "mine.yaml"
    root.mkdir()
    make(root)
    assert new_config.main([str(root), "--output", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["train: 2 images, 3 boxes", "val: 1 images, 1 boxes"]
    assert printed[2] in ("2 classes: cat, big dog", "2 classes: big dog, cat")
    assert (
        printed[3] == f"written: {output}" and printed[-1] == f"  python main.py --config {output}"
    )
    config = load_config(output).config
    assert config.model.head.anchors == "auto" and config.training.steps == 2400
    for split, images in TRUTH.items():
        expected = {
            name: sorted((NAMES[label], [*map(float, box)]) for label, box in objects)
            for name, objects in images.items()
        }
        assert truth_of(build_dataset(config, split)) == expected


def spoil_yaml(root: Path) -> None:
    (root / "data.yaml").write_text("train: [\n")


def name_a_missing_folder(root: Path) -> None:
    ultralytics(root)
    (root / "data.yaml").write_text("train: images/none\nval: images/val\nnames: [cat, big dog]\n")


def name_a_list(root: Path) -> None:
    (root / "data.yaml").write_text("train: [a/images, b/images]\nval: c\nnames: [cat]\n")


def leave_out_val(root: Path) -> None:
    roboflow(root)
    (root / "data.yaml").write_text("train: ../train/images\nnames: [cat, big dog]\n")


def repeat_a_split(root: Path) -> None:
    roboflow_coco(root)
    coco_json(root / "train" / "more.json", "train")


def lose_the_images(root: Path) -> None:
    coco_json(root / "train.json", "train")


def number_the_images(root: Path) -> None:
    annotations = [{"bbox": [0, 0, 9, 9], "image_id": 1, "category_id": 1}]
    content = {"images": [{"id": 1, "file_name": 1}], "annotations": annotations}
    (root / "train.json").write_text(json.dumps(content))


def misspell_a_class(root: Path) -> None:
    ultralytics(root)
    (root / "labels/train/a.txt").write_text("7 0.5 0.5 0.5 0.5\n")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: None, "nothing of a known form was found"),
        (spoil_yaml, "data.yaml: line 2"),
        (name_a_missing_folder, "`train` is images/none, but there is no folder"),
        (name_a_list, "`train` must be one folder of images, not a list"),
        (leave_out_val, "has images for train, but none for val"),
        (repeat_a_split, "both are for train; take one out"),
        (lose_the_images, "its first image, a.png, is in no folder of"),
        (number_the_images, "nothing of a known form was found"),
        (misspell_a_class, "line 1 has the class 7, but there are the classes 0 to 1"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    make: Callable[[Path], None], sentence: str, tmp_path: Path, capsys
) -> None:
    root, output = tmp_path / "data", tmp_path / "mine.yaml"
    root.mkdir()
    make(root)
    assert new_config.main([str(root), "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and sentence in error
    assert not output.exists()


def test_a_config_is_never_overwritten(tmp_path: Path, capsys) -> None:
    output = tmp_path / "mine.yaml"
    output.write_text("seed: 1\n")
    with pytest.raises(SystemExit) as stopped:
        new_config.main([str(tmp_path), "--output", str(output)])
    assert stopped.value.code == 2 and "exists; name another --output" in capsys.readouterr().err
    assert output.read_text() == "seed: 1\n"
