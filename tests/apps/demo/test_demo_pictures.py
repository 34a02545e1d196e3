"""What is taken from strangers and what is refused, and what is shown of it."""

import math

import numpy as np
import pytest
from PIL import Image

from tests.apps.demo.stand_ins import QuarterFinder, explain
from tests.data.test_images import png_header
from yolo.apps.demo import pictures
from yolo.apps.demo.pictures import Views, read_picture, write_examples
from yolo.apps.report.drawing import class_colour
from yolo.errors import UserError

KINDS = ["jpg RGB", "jpg L", "jpg CMYK", "png RGBA", "png I;16", "png P", "webp RGBA", "bmp 1"]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_every_kind(kind, tmp_path):
    suffix, mode = kind.split()
    path = tmp_path / f"picture.{suffix}"
    Image.new(mode, (30, 20)).save(path)
    picture = read_picture(path)
    assert picture.shape == (20, 30, 3)
    assert picture.dtype == np.uint8


def test_a_telephones_picture_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (30, 20, 3)


REFUSED = {
    "text.jpg": (b"this is no picture", "no picture"),
    "empty.png": (b"", "no picture"),
    "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    "large.png": (png_header(8000, 8000), "more than 50 million pixels"),
    "bomb.png": (png_header(60000, 60000), "more than 50 million pixels"),
    "torn.png": (png_header(64, 64), "cannot be decoded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_without_its_folder(name, tmp_path):
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_picture(tmp_path / name)
    assert name in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_other_formats_are_refused_though_pillow_reads_them(tmp_path):
    for suffix in ("gif", "tiff", "ico", "pdf"):
        path = tmp_path / f"a.{suffix}"
        Image.new("RGB", (32, 32)).save(path)
        path = path.rename(path.with_suffix(".png"))
        with pytest.raises(UserError, match="choose a JPEG, PNG, WEBP or BMP file"):
            read_picture(path)


def test_large_files_are_refused_without_reading_them(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST_UPLOAD_MIB", 1)
    Image.new("RGB", (700, 700)).save(tmp_path / "a.bmp")
    with pytest.raises(UserError, match="1 MiB, at most 1 are allowed"):
        read_picture(tmp_path / "a.bmp")


def test_examples_are_always_the_same_drawings(tmp_path):
    first, again = (write_examples(tmp_path / name, 3) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert len({path.read_bytes() for path in first}) == 3
    assert all(read_picture(path).std() > 10 for path in first)


GREY = np.full((200, 100, 3), 128, np.uint8)


def test_table_and_drawing():
    finder = QuarterFinder()
    drawn, rows = Views(finder, explain).boxes(GREY, 0.3, 0.5)
    assert rows == [("cat", 0.9, 0, 0, 50, 100), ("<b>dog</b>", 0.4, 0, 0, 100, 200)]
    assert finder.asked == [(0.3, 0.5)]
    assert drawn.shape == GREY.shape
    assert (drawn[80, 48:52] == class_colour(0)).all(1).any()  # the cat's right side
    assert Views(finder, explain).boxes(GREY, 0.5, 0.5)[1] == rows[:1]
    assert Views(finder, explain).boxes(GREY, 1, 0.5)[1] == []


def test_a_large_picture_is_shown_small_but_measured_whole():
    large = np.full((3200, 1600, 3), 128, np.uint8)
    views = Views(QuarterFinder(), explain)
    drawn, rows = views.boxes(large, 0.5, 0.5)
    assert rows == [("cat", 0.9, 0, 0, 800, 1600)]
    assert drawn.shape == (1600, 800, 3)
    assert (drawn[700, 397:403] == class_colour(0)).all(1).any()
    assert [overlay.shape for overlay, _ in views.maps(large)] == [(1600, 800, 3)] * 2
    assert [caption for _, caption in views.maps(large)] == ["stride8", "stride16"]


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, math.inf, None, "0.5", {"path": "x"}])
def test_thresholds_that_a_browser_would_not_send(value):
    with pytest.raises(UserError, match="confidence: must be a number from 0 to 1"):
        Views(QuarterFinder(), explain).boxes(GREY, value, 0.5)
    with pytest.raises(UserError, match="IoU: must be"):
        Views(QuarterFinder(), explain).boxes(GREY, 0.5, value)
