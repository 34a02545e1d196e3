"""Data sets written in every format and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data.test_images import save_turned
from tests.data.voc_files import write_image
from yolo.apps.convert.conversion import FORMATS, convert
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.formats.voc import VocDataset
from yolo.data.formats.voc_files import EVERY_XML
from yolo.data.formats.yolo_text import YoloTextDataset
from yolo.errors import UserError

DATASETS = {
    "coco": CocoDataset,
    "csv_boxes": CsvBoxesDataset,
    "voc": VocDataset,
    "yolo_text": YoloTextDataset,
}
SIZES_WH = {
    "8/tall.png": (33, 301),
    "8/wide.jpg": (641, 50),
    "one.jpg": (1, 1),
    "9/łódź & \"co\", <a>.jpg": (97, 61),
    "none.jpeg": (60, 40),
}  # fmt: skip
NAMES = ("zebra", "cat, large", '<dog> & "co"', "кошка")
IDS = (5, 90, 3, 7)


def coco_of(
    folder: Path, images: list[Any], boxes: list[Any], classes: list[Any], **settings: Any
) -> CocoDataset:
    """Of images, from the id 7 on; images are (name, width, height), classes are (id, name)."""
    keys = ("id", "file_name", "width", "height")
    data = {
        "images": [dict(zip(keys, (i, *image), strict=True)) for i, image in enumerate(images, 7)],
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for number, name in classes],
    }
    (folder / "made.json").write_text(json.dumps(data))
    return CocoDataset(annotations=folder / "made.json", images=folder / "images", **settings)


@pytest.fixture
def made(tmp_path: Path) -> CocoDataset:
    """Boxes with fractions that no float holds, of one pixel, of a whole image; one crowd."""
    rng = np.random.default_rng(5)
    boxes = []
    for number, (name, size_wh) in enumerate(SIZES_WH.items(), start=7):
        write_image(tmp_path / "images" / name, size_wh)
        width, height = size_wh
        if name == "none.jpeg":
            continue
        corners = np.sort(rng.random((4, 2, 2)) * size_wh, axis=1).round(2)  # (4, 2, xy)
        made = [*corners.reshape(4, 4).tolist(), [0, 0, width, height], [0.1, 0.7, 1, 1]]
        made.append([width - 1, height - 1, width, height])
        for place, (left, top, right, bottom) in enumerate(made):
            box = {"image_id": number, "bbox": [left, top, right - left, bottom - top]}
            boxes.append({**box, "category_id": IDS[place % 4], "iscrowd": int(place == 2)})
    images = [(name, *size_wh) for name, size_wh in SIZES_WH.items()]
    return coco_of(tmp_path, images, boxes, [*zip(IDS, NAMES, strict=True)], class_names=NAMES)


def write(
    dataset: DetectionDataset, output: Path, to: str, images: str = "copy", split: str = "train"
) -> tuple[dict[str, Any], int]:
    return convert(dataset, to=to, output=output, images=images, split=split)


def read(section: dict[str, Any], class_names: Sequence[str] = NAMES) -> DetectionDataset:
    fields = {key: value for key, value in section.items() if key != "type"}
    return DATASETS[section["type"]](**fields, class_names=class_names)


def contents(dataset: DetectionDataset, *, ignored: bool) -> dict[str, Any]:
    """Everything by the images' names, which no format changes; ignored boxes on request."""
    found, paths = {}, [dataset.image_path(index) for index in range(len(dataset))]
    folder = os.path.commonpath([path.parent for path in paths])
    for index, path in enumerate(paths):
        boxes, labels, flags = dataset.annotations.truth(index)
        kept = np.full(len(flags), True) if ignored else ~flags
        found[path.relative_to(folder).as_posix()] = (
            dataset.annotations.size_hw(index),
            boxes[kept].tolist(),
            [dataset.class_names[label] for label in labels[kept]],
            flags[kept].tolist(),
            path.read_bytes(),
        )
    return found


def check_all_pairs(dataset: DetectionDataset, folder: Path) -> None:
    """In one format, from there in another: nothing changes, not a bit of a box."""
    written = {"": dataset}
    for one, to in [*product([""], FORMATS), *permutations(FORMATS, 2)]:
        section, boxes = write(written[one], folder / f"{one} to {to}", to, images="link")
        again = read(section, dataset.class_names)
        expected = contents(written[one], ignored=FORMATS[to].ignored)
        assert contents(again, ignored=True) == expected
        assert again.class_names == dataset.class_names
        assert boxes == len(again.annotations.labels)
        assert not again.findings.counts
        written.setdefault(to, again)


def test_made_data_survives_all_pairs(made: CocoDataset, tmp_path: Path) -> None:
    assert made.annotations.ignored.sum() == 4
    check_all_pairs(made, tmp_path)


@pytest.mark.parametrize("name", ["coco-mini", "voc-sample"])
def test_real_data_survives_all_pairs(real_data: Path, tmp_path: Path, name: str) -> None:
    root = real_data / name
    if name == "coco-mini":
        annotations = root / "annotations/instances_val2017.json"
        dataset = CocoDataset(annotations=annotations, images=root / "val2017")
    else:
        dataset = VocDataset(root=root, image_sets=[EVERY_XML])
    assert dataset.annotations.ignored.any()
    # copied onto the file system of the test, so that links are possible
    section, _ = write(dataset, tmp_path / "copy", "coco", split="val")
    check_all_pairs(read(section, dataset.class_names), tmp_path)


def test_coco_keeps_its_ids_and_what_pycocotools_reads(made: CocoDataset, tmp_path: Path) -> None:
    section, _ = write(made, tmp_path / "out", "coco")
    truth = json.loads(section["annotations"].read_text())
    assert [image["id"] for image in truth["images"]] == [7, 8, 9, 10, 11]
    assert truth["categories"][0] == {"id": 3, "name": NAMES[2]}
    whole = {"id": 5, "image_id": 7, "category_id": 5, "bbox": [0, 0, 33, 301], "area": 33 * 301}
    assert truth["annotations"][4] == {**whole, "iscrowd": 0}
    assert read(section).category_ids == made.category_ids == (5, 90, 3, 7)


def test_voc_counts_pixels_from_one_and_text_is_relative(made: CocoDataset, tmp_path: Path) -> None:
    section, _ = write(made, tmp_path / "voc", "voc", split="val")
    xml = (tmp_path / "voc/Annotations/8/tall.xml").read_text()
    assert xml.count("<object>") == 7 and xml.count("<difficult>1</difficult>") == 1
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>33</xmax><ymax>301</ymax>" in xml
    assert "<xmin>1.1</xmin><ymin>1.7</ymin><xmax>1</xmax><ymax>1</ymax>" in xml
    assert (tmp_path / "voc/ImageSets/Main/val.txt").read_text().splitlines()[2] == "one"
    assert section == {"type": "voc", "root": tmp_path / "voc", "image_sets": ["val"]}
    write(made, tmp_path / "text", "yolo_text", split="val")
    lines = (tmp_path / "text/labels/8/tall.txt").read_text().splitlines()
    assert len(lines) == 6 and lines[3] == "0 0.5 0.5 1.0 1.0"
    assert (tmp_path / "text/labels/none.txt").read_text() == ""


def test_images_are_linked_copied_or_stay(made: CocoDataset, tmp_path: Path) -> None:
    source = tmp_path / "images/8/tall.png"
    for images in ("link", "copy"):
        write(made, tmp_path / images, "csv_boxes", images)
        assert (tmp_path / images / "images/8/tall.png").samefile(source) == (images == "link")
    section, _ = write(made, tmp_path / "c", "csv_boxes", "keep")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["boxes.csv"]
    assert section["images"] == tmp_path / "images"
    assert contents(read(section), ignored=True) == contents(made, ignored=False)
    for to, sentence in (("voc", "voc has its images in its own"), ("yolo_text", "takes all im")):
        with pytest.raises(UserError, match=sentence):
            write(made, tmp_path / "d", to, "keep")


def test_nothing_is_overwritten_and_nothing_half_stays(made, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "empty").mkdir()
    for taken in (tmp_path / "images", tmp_path / "made.json"):
        with pytest.raises(UserError, match="exists already, and nothing is overwritten"):
            write(made, taken, "coco")
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "images/one.jpg").unlink()
    with pytest.raises(UserError, match=r"the image .*one\.jpg does not exist"):
        write(made, tmp_path / "empty", "coco")
    write_image(tmp_path / "images/one.jpg", (1, 1))

    def other_file_system(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", other_file_system)
    with pytest.raises(UserError, match=r"cannot be hard-linked \(Invalid cross.*: let the images"):
        write(made, tmp_path / "empty", "coco", "link")
    assert {path.name for path in tmp_path.iterdir()} == before
    assert not any((tmp_path / "empty").iterdir())
    write(made, tmp_path / "empty", "coco")


@pytest.mark.parametrize(
    ("to", "names", "classes", "sentence"),
    [
        ("voc", ["a.jpg", "a.png"], ["cat"], "the image a: stands there more .* one XML for both"),
        ("yolo_text", ["a.jpg", "a.png"], ["cat"], "the image a: .* one text file for both"),
        ("yolo_text", ["b.img"], ["cat"], r"the image b\.img: yolo_text takes images by their suf"),
        ("csv_boxes", [" c.jpg"], ["cat"], r"the image ' c\.jpg': csv_boxes cannot hold names"),
        ("voc", ["a.jpg"], ["cat "], "the class 'cat ': voc cannot hold names"),
        ("coco", ["a.jpg", "./a.jpg"], ["cat"], r"the image a\.jpg: stands there more than once"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, to, names, classes, sentence) -> None:
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("RGB", (60, 40)).save(tmp_path / "images" / name, "PNG")
    dataset = coco_of(tmp_path, [(name, 60, 40) for name in names], [], [*enumerate(classes)])
    with pytest.raises(UserError, match=sentence):
        write(dataset, tmp_path / "out", to)


def test_an_image_that_its_exif_turns(tmp_path: Path) -> None:
    """60x40 px as stored, shown as 40x60, and the boxes are for that."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :, 0] = 255  # the upper half; shown, it is the right one
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images/a.png", exif=exif)
    box = {"image_id": 7, "category_id": 1, "bbox": [20, 0, 20, 60]}
    dataset = coco_of(tmp_path, [("a.png", 40, 60)], [box], [(1, "red")])
    for to in ("coco", "voc", "csv_boxes", "yolo_text"):
        sample = read(write(dataset, tmp_path / to, to)[0], ["red"]).load(0)
        left, top, right, bottom = sample.boxes_xyxy_px[0].astype(int)
        assert sample.image.shape == (60, 40, 3)
        assert (sample.image[top:bottom, left:right, 0] == 255).all()
    assert cv2.imread(str(tmp_path / "voc/JPEGImages/a.png")).shape == (60, 40, 3)


def test_boxes_drawn_on_stored_images_stay_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    save_turned(tmp_path / "images/a.png", np.zeros((40, 60, 3), np.uint8), 3)
    (tmp_path / "images/a.txt").write_text("0 0.1 0.1 0.2 0.2\n")
    folders = {"images": tmp_path / "images", "labels": tmp_path / "images"}
    dataset = YoloTextDataset(**folders, class_names=["red"], upright=False)
    for to in FORMATS:
        section, _ = write(dataset, tmp_path / to, to)
        assert section["upright"] is False
        assert read(section, ["red"]).load(0).boxes_xyxy_px.tolist() == [[0, 0, 12, 8]]


def test_a_mixture_of_both_needs_sizes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        save_turned(tmp_path / f"images/{name}.png", np.zeros((40, 60, 3), np.uint8), 6)
    dataset = coco_of(tmp_path, [("a.png", 60, 40), ("b.png", 40, 60)], [], [(1, "red")])
    assert read(write(dataset, tmp_path / "voc", "voc")[0], ["red"]).load(0).image.shape[0] == 40
    for to in ("csv_boxes", "yolo_text"):
        with pytest.raises(UserError, match=f"{to} cannot say which of the images were turned"):
            write(dataset, tmp_path / to, to)
