"""Data sets of one table of boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.voc_files import write_image
from yolo.data.formats import truth_files
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.errors import UserError

HEADER = "image,xmin,ymin,xmax,ymax,class\n"
LINES = """b.jpg,10,5.5,30,25,dog
sub/a.png, 0, 0, 60, 40, "cat, large"

c.jpg,,,,,
./b.jpg,0.1,2,3,4,bird
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of 60x40 px."""
    for name in ("b.jpg", "sub/a.png", "c.jpg"):
        write_image(tmp_path / "images" / name)
    return tmp_path / "images"


def open_table(
    folder: Path, text: str = LINES, encoding: str = "utf-8", **settings: object
) -> CsvBoxesDataset:
    path = folder.parent / "boxes.csv"
    path.write_text(text, encoding)
    return CsvBoxesDataset(**{"boxes": path, "images": folder} | settings)


@pytest.mark.parametrize("header", ["", HEADER, HEADER.upper()])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_is_read(images: Path, header: str, encoding: str) -> None:
    dataset = open_table(images, header + LINES, encoding)
    assert dataset.class_names == ("bird", "cat, large", "dog")
    assert dataset.category_ids == (1, 2, 3)
    names = [dataset.annotations.file_name(i) for i in range(3)]
    assert names == ["b.jpg", "sub/a.png", "c.jpg"]
    assert dataset.annotations.sizes_hw.tolist() == [[40, 60]] * 3
    sample = dataset.load(0)
    assert sample.image.shape == (40, 60, 3)
    expected = np.array([[10, 5.5, 30, 25], [0.1, 2, 3, 4]], np.float32)
    np.testing.assert_array_equal(sample.boxes_xyxy_px, expected)
    assert sample.labels.tolist() == [2, 0]
    assert not sample.ignored.any()
    assert dataset.load(1).boxes_xyxy_px.tolist() == [[0, 0, 60, 40]]
    assert len(dataset.load(2).labels) == 0


def test_the_config_orders_the_classes(images: Path) -> None:
    names = ["dog", "fish", "bird", "cat, large"]
    dataset = open_table(images, class_names=names)
    assert dataset.class_names == tuple(names)
    assert dataset.annotations.labels.tolist() == [0, 2, 3]


def test_images_without_boxes_alone_need_class_names(images: Path) -> None:
    with pytest.raises(UserError, match=r"boxes\.csv holds no box: name the classes in cl"):
        open_table(images, "c.jpg,,,,,\n")
    dataset = open_table(images, "c.jpg,,,,,\n", class_names=["cat"])
    assert dataset.annotations.box_counts().tolist() == [0]


def test_boxes_are_sanitized_as_in_every_format(images: Path) -> None:
    lines = ["-1,0,9,9,cat", "5,5,5,9,dog", "nan,0,9,9,dog", "0,0,60.01,40,dog"]
    dataset = open_table(images, "".join(f"b.jpg,{line}\n" for line in lines))
    assert dataset.annotations.boxes_xyxy_px.tolist() == [[0, 0, 9, 9], [0, 0, 60, 40]]
    assert dataset.findings.counts == {"clipped": 1, "no area": 1, "not finite": 1}
    assert dataset.findings.texts[1] == (
        f"{images.parent}/boxes.csv, line 2 (dog), box [5, 5, 5, 9], dropped (no area) from the "
        "image of 60x40 px"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"boxes\.csv lists no image; its lines must be `image,xmin,ymin,xmax,ymax,class`"),
        (HEADER, r"boxes\.csv lists no image"),
        ("b.jpg;1;2;3;4;cat\n", r"boxes\.csv, line 1 has 1 fields, but must be `image,xmin"),
        (f"{HEADER}\nb.jpg,1,2,3,4\n", "line 3 has 5 fields"),
        ("b.jpg,1,2,3,x,cat\n", "line 1: the box '1,2,3,x' must be four numbers of pixels"),
        ("b.jpg,1,2,,4,cat\n", "line 1: the box '1,2,,4' must be four numbers"),
        ("b.jpg,,,,,cat\n", "an image without boxes has all five fields empty"),
        ("b.jpg,1,2,3,4,\n", "line 1 names no class; its last field must be"),
        ("file,x1,y1,x2,y2,label\n", "line 1: the box 'x1,y1,x2,y2' must be four numbers"),
        ("../b.jpg,1,2,3,4,cat\n", r"line 1: the image '\.\./b\.jpg' must be a file name inside"),
        ("/b.jpg,1,2,3,4,cat\n", "line 1: the image '/b.jpg' must be a file name inside"),
        (",1,2,3,4,cat\n", "line 1: the image '' must be a file name inside"),
        ("c.jpg,1,2,3,4,cat\nd.jpg,1,2,3,4,cat\n", r"line 2: the image .*d\.jpg does not exist"),
        ("c.jpg,,,,,\nc.jpg,1,2,3,4,cat\n", r"line 1 says that c\.jpg has no boxes, but line 2 ha"),
        ('"b.jpg,1,2,3,4,cat', r"the table of boxes .*boxes\.csv is broken: unexpected end"),
    ],
)
def test_a_fault_is_reported_with_file_and_line(images: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_table(images, text)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"class_names": ["bird"]}, r"boxes\.csv, line 1 is of the class 'dog', which class"),
        ({"images": Path("none")}, r"the folder of images none does not exist"),
        ({"boxes": Path()}, r"the table of boxes \. cannot be read: Is a direc"),
        ({"boxes": Path("none.csv")}, r"the table of boxes none\.csv does not exist"),
        ({"boxes": Path("latin.csv")}, r"latin\.csv is no text in UTF-8"),
    ],
)
def test_what_cannot_be_meant(images: Path, monkeypatch, settings, sentence: str) -> None:
    monkeypatch.chdir(images)
    Path("latin.csv").write_bytes(b"\xe9")
    with pytest.raises(UserError, match=sentence):
        open_table(images, **settings)


def test_the_table_is_cached_by_its_content(images: Path, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "cache"
    first, changed = open_table(images, cache=cache), LINES.replace("5.5", "6.5")
    assert open_table(images, changed, cache=cache).annotations.boxes_xyxy_px[0, 1] == 6.5
    monkeypatch.setattr(truth_files, "measure", None)  # nothing is measured or parsed again
    again = open_table(images, changed, cache=cache)
    assert again.class_names == first.class_names
    assert again.annotations.box_counts().tolist() == [2, 1, 0]
    with pytest.raises(TypeError):  # other names: another entry
        open_table(images, changed, cache=cache, class_names=[*first.class_names, "fish"])
