"""Data sets written in every format and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data.voc_files import write_image
from yolo.apps.convert.conversion import FORMATS, Conversion, convert
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.formats.voc import EVERY_XML, VocDataset
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


def coco_of(
    path: Path,
    folder: Path,
    images: list[Any],
    boxes: list[Any],
    classes: list[Any],
    class_names: Sequence[str] | None = None,
) -> CocoDataset:
    """A json for a folder of images; images are (name, width, height), classes are (id, name)."""
    keys = ("id", "file_name", "width", "height")
    data = {
        "images": [dict(zip(keys, (i, *image), strict=True)) for i, image in enumerate(images, 7)],
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for number, name in classes],
    }
    path.write_text(json.dumps(data))
    return CocoDataset(annotations=path, images=folder, class_names=class_names)


def made_data(folder: Path) -> CocoDataset:
    """Boxes with fractions that no float holds, of one pixel, of a whole image; one crowd."""
    rng = np.random.default_rng(5)
    boxes = []
    for number, (name, size_wh) in enumerate(SIZES_WH.items(), start=7):
        write_image(folder / "images" / name, size_wh)
        width, height = size_wh
        if name == "none.jpeg":
            continue
        corners = np.sort(rng.random((4, 2, 2)) * size_wh, axis=1).round(2)  # (4, 2, xy)
        made = [*corners.reshape(4, 4).tolist(), [0, 0, width, height], [0.1, 0.7, 1, 1]]
        made.append([width - 1, height - 1, width, height])
        for place, (left, top, right, bottom) in enumerate(made):
            boxes.append(
                {
                    "image_id": number,
                    "category_id": [5, 90, 3, 7][place % 4],
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": int(place == 2),
                }
            )
    images = [(name, *size_wh) for name, size_wh in SIZES_WH.items()]
    classes = [*zip([5, 90, 3, 7], NAMES, strict=True)]
    return coco_of(
        folder / "made.json", folder / "images", images, boxes, classes, class_names=NAMES
    )


def read(conversion: Conversion) -> DetectionDataset:
    section = dict(conversion.section)
    return DATASETS[section.pop("type")](**section, class_names=conversion.class_names)


def contents(dataset: DetectionDataset, *, ignored: bool) -> dict[str, Any]:
    """Everything by the images' names, which no format changes; ignored boxes on request."""
    found = {}
    paths = [dataset.image_path(index) for index in range(len(dataset))]
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
    firsts = {}
    for to, form in FORMATS.items():
        done = convert(dataset, to=to, output=folder / to, images="link", split="val")
        firsts[to] = read(done)
        expected = contents(dataset, ignored=form.ignored)
        assert contents(firsts[to], ignored=True) == expected
        assert firsts[to].class_names == dataset.class_names
        assert done.boxes + done.left_out == len(dataset.annotations.labels)
        assert not firsts[to].findings.counts
    for one, to in permutations(FORMATS, 2):
        output = folder / f"{one} to {to}"
        done = convert(firsts[one], to=to, output=output, images="link", split="train")
        expected = contents(firsts[one], ignored=FORMATS[to].ignored)
        assert contents(read(done), ignored=True) == expected
        assert read(done).class_names == dataset.class_names


def test_made_data_survives_all_pairs(tmp_path: Path) -> None:
    dataset = made_data(tmp_path)
    assert dataset.annotations.ignored.sum() == 4
    check_all_pairs(dataset, tmp_path)


def test_real_coco_survives_all_pairs(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "coco-mini"
    dataset = CocoDataset(
        annotations=root / "annotations/instances_val2017.json", images=root / "val2017"
    )
    assert dataset.annotations.ignored.any()
    check_all_pairs(copied(dataset, tmp_path), tmp_path)


def test_real_voc_survives_all_pairs(real_data: Path, tmp_path: Path) -> None:
    dataset = VocDataset(root=real_data / "voc-sample", image_sets=[EVERY_XML])
    assert dataset.annotations.ignored.any()
    check_all_pairs(copied(dataset, tmp_path), tmp_path)


def copied(dataset: DetectionDataset, folder: Path) -> DetectionDataset:
    """On the file system of the test, so that links are possible."""
    done = convert(dataset, to="coco", output=folder / "copy", images="copy", split="val")
    return read(done)


def test_coco_keeps_its_ids_and_what_pycocotools_reads(tmp_path: Path) -> None:
    dataset = made_data(tmp_path)
    done = convert(dataset, to="coco", output=tmp_path / "out", images="copy", split="train")
    truth = json.loads(Path(done.section["annotations"]).read_text())
    assert [image["id"] for image in truth["images"]] == [7, 8, 9, 10, 11]
    assert truth["categories"][0] == {"id": 3, "name": NAMES[2]}
    whole = truth["annotations"][4]
    assert whole == {
        "id": 5, "image_id": 7, "category_id": 5, "bbox": [0, 0, 33, 301], "area": 33 * 301,
        "iscrowd": 0,
    }  # fmt: skip
    assert read(done).category_ids == dataset.category_ids == (5, 90, 3, 7)


def test_voc_counts_pixels_from_one_and_text_is_relative(tmp_path: Path) -> None:
    dataset = made_data(tmp_path)
    voc = convert(dataset, to="voc", output=tmp_path / "voc", images="copy", split="val")
    xml = (tmp_path / "voc/Annotations/8/tall.xml").read_text()
    assert xml.count("<object>") == 7 and xml.count("<difficult>1</difficult>") == 1
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>33</xmax><ymax>301</ymax>" in xml
    assert "<xmin>1.1</xmin><ymin>1.7</ymin><xmax>1</xmax><ymax>1</ymax>" in xml
    assert (tmp_path / "voc/ImageSets/Main/val.txt").read_text().splitlines()[2] == "one"
    assert voc.section == {"type": "voc", "root": str(tmp_path / "voc"), "image_sets": ["val"]}
    convert(dataset, to="yolo_text", output=tmp_path / "text", images="copy", split="val")
    lines = (tmp_path / "text/labels/8/tall.txt").read_text().splitlines()
    assert len(lines) == 6 and lines[3] == "0 0.5 0.5 1.0 1.0"
    assert (tmp_path / "text/labels/none.txt").read_text() == ""


def test_images_are_linked_copied_or_stay(tmp_path: Path) -> None:
    dataset = made_data(tmp_path)
    source = tmp_path / "images/8/tall.png"
    convert(dataset, to="csv_boxes", output=tmp_path / "a", images="link", split="train")
    assert (tmp_path / "a/images/8/tall.png").samefile(source)
    convert(dataset, to="csv_boxes", output=tmp_path / "b", images="copy", split="train")
    assert not (tmp_path / "b/images/8/tall.png").samefile(source)
    done = convert(dataset, to="csv_boxes", output=tmp_path / "c", images="keep", split="train")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["boxes.csv"]
    assert done.section["images"] == str(tmp_path / "images")
    assert contents(read(done), ignored=True) == contents(dataset, ignored=False)
    for to, sentence in (("voc", "voc has its images in its own"), ("yolo_text", "takes all im")):
        with pytest.raises(UserError, match=sentence):
            convert(dataset, to=to, output=tmp_path / "d", images="keep", split="train")


def test_nothing_is_overwritten_and_nothing_half_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = made_data(tmp_path)
    (tmp_path / "empty").mkdir()
    for taken in (tmp_path / "images", tmp_path / "made.json"):
        with pytest.raises(UserError, match="exists already, and nothing is overwritten"):
            convert(dataset, to="coco", output=taken, images="copy", split="train")
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "images/one.jpg").unlink()
    with pytest.raises(UserError, match=r"the image .*one\.jpg does not exist"):
        convert(dataset, to="coco", output=tmp_path / "empty", images="copy", split="train")
    write_image(tmp_path / "images/one.jpg", (1, 1))

    def other_file_system(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", other_file_system)
    with pytest.raises(UserError, match=r"cannot be hard-linked \(Invalid cross.*: let the images"):
        convert(dataset, to="coco", output=tmp_path / "empty", images="link", split="train")
    assert {path.name for path in tmp_path.iterdir()} == before
    assert not any((tmp_path / "empty").iterdir())
    convert(dataset, to="coco", output=tmp_path / "empty", images="copy", split="train")


@pytest.mark.parametrize(
    ("to", "names", "classes", "sentence"),
    [
        ("voc", ["a.jpg", "a.png"], ["cat"], "the image a: stands there more .* one XML for both"),
        ("yolo_text", ["a.jpg", "a.png"], ["cat"], "the image a: .* one text file for both"),
        ("yolo_text", ["b.gif"], ["cat"], r"the image b\.gif: yolo_text takes images by their suf"),
        ("csv_boxes", [" c.jpg"], ["cat"], r"the image ' c\.jpg': csv_boxes cannot hold names"),
        ("voc", ["a.jpg"], ["cat "], "the class 'cat ': voc cannot hold names"),
        ("csv_boxes", ["a.jpg"], ["cat", "cat"], "the class cat: stands there more than once"),
        ("coco", ["a.jpg", "./a.jpg"], ["cat"], r"the image a\.jpg: stands there more than once"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, to: str, names: list[str], classes: list[str], sentence: str
) -> None:
    for name in names:
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    images = [(name, 60, 40) for name in names]
    dataset = coco_of(tmp_path / "a.json", tmp_path, images, [], [*enumerate(classes)])
    with pytest.raises(UserError, match=sentence):
        convert(dataset, to=to, output=tmp_path / "out", images="copy", split="train")


def test_an_image_that_its_exif_turns(tmp_path: Path) -> None:
    """60x40 px as stored, shown as 40x60: coco and voc hold the size, the others not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :, 0] = 255  # the upper half; shown, it is the right one
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    box = {"image_id": 7, "category_id": 1, "bbox": [20, 0, 20, 60]}
    dataset = coco_of(tmp_path / "a.json", tmp_path, [("a.png", 40, 60)], [box], [(1, "red")])
    for to in ("coco", "voc"):
        done = convert(dataset, to=to, output=tmp_path / to, images="copy", split="train")
        sample = read(done).load(0)
        left, top, right, bottom = sample.boxes_xyxy_px[0].astype(int)
        assert sample.image.shape == (60, 40, 3)
        assert (sample.image[top:bottom, left:right, 0] == 255).all()
    for to in ("csv_boxes", "yolo_text"):
        with pytest.raises(UserError, match="is stored as 60x40 px, but its boxes are for 40x60"):
            convert(dataset, to=to, output=tmp_path / to, images="copy", split="train")
    assert cv2.imread(str(tmp_path / "voc/JPEGImages/a.png")).shape == (60, 40, 3)
