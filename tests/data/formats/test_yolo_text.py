"""Data sets of Darknet's text files, found in folders or on a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.voc_files import write_image
from yolo.data.formats import truth_files
from yolo.data.formats.yolo_text import YoloTextDataset
from yolo.errors import UserError

NAMES = ["cat", "dog", "bird"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images of 60x40 px: 1 with two boxes, sub/2 with none in its file, 3 without a file."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    for name in ("1.jpg", "sub/2.png", "3.JPEG"):
        write_image(images / name)
    (labels / "sub").mkdir(parents=True)
    (labels / "1.txt").write_text("2 0.5 0.5 1 1\n\n 0 0.25 0.5 0.1 0.25 \n")
    (labels / "sub/2.txt").write_text("")
    (labels / "classes.txt").write_text("\n".join(NAMES))  # of a labelling tool
    return images, labels


def open_folders(folders, **settings) -> YoloTextDataset:
    images, labels = folders
    return YoloTextDataset(**{"images": images, "labels": labels, "class_names": NAMES} | settings)


def open_list(folders, text: str | None, **settings) -> YoloTextDataset:
    path = folders[0].parent / "list.csv"
    if text is not None:
        path.write_text(text)
    return open_folders(folders, list=path, **settings)


def test_folders_are_read(folders: tuple[Path, Path]) -> None:
    dataset = open_folders(folders)
    assert (dataset.class_names, dataset.category_ids) == (("cat", "dog", "bird"), (1, 2, 3))
    assert [dataset.annotations.file_name(i) for i in range(3)] == ["1.jpg", "3.JPEG", "sub/2.png"]
    assert dataset.annotations.image_ids.tolist() == [1, 3, 2]
    assert dataset.annotations.box_counts().tolist() == [2, 0, 0]
    sample = dataset.load(0)
    assert sample.image.shape == (40, 60, 3)
    # centre (15, 20), 6 px wide and 10 px high
    assert sample.boxes_xyxy_px.tolist() == [[0, 0, 60, 40], [12, 15, 18, 25]]
    assert sample.labels.tolist() == [2, 0]
    assert not sample.ignored.any()


@pytest.mark.parametrize("name", ["data.yaml", "names.yaml"])
@pytest.mark.parametrize(
    ("shape", "points"), [([2, 3], "0.5 0.5 2 0 0 0"), ([3, 2], "0.5 0.5 0.3 0.4 0 0")]
)
def test_key_points_are_left_out(folders, tmp_path: Path, name: str, shape, points: str) -> None:
    (tmp_path / name).write_text(f"kpt_shape: {shape}\nnames: {NAMES}")
    (folders[1] / "1.txt").write_text(
        f"1 0.5 0.5 0.5 0.5 {points}\n0 0.5 0.1 0.9 0.5 0.1 0.5\n2 0.5 0.5 1 1 0.9"
    )
    named = {"names": tmp_path / name} if name == "names.yaml" else {}
    dataset = open_folders(folders, **named)
    boxes, labels, _ = dataset.annotations.truth(0)
    expected = [[15, 10, 45, 30], [6, 4, 54, 20], [0, 0, 60, 40]]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert labels.tolist() == [1, 0, 2]
    assert dataset.findings.notes == (
        "1 boxes with key points, which are left out",
        "1 boxes around outlines",
        "1 confidences, which are left out",
    )


def test_names_that_are_no_utf_8(folders: tuple[Path, Path]) -> None:
    write_image(folders[0] / "4.jpg").rename(folders[0] / "\udcff.jpg")
    with pytest.raises(UserError, match=r"the file name '\\udcff\.jpg' is not UTF-8; rename"):
        open_folders(folders)


@pytest.mark.parametrize("header", ["", "image,annotation\n"])
def test_a_list_is_read_in_its_order(folders: tuple[Path, Path], header: str) -> None:
    dataset = open_list(folders, f'{header}"sub/2.png", sub/2.txt\n\n1.jpg,1.txt\n')
    assert (dataset.class_names, dataset.category_ids) == (("cat", "dog", "bird"), (1, 2, 3))
    assert [dataset.annotations.file_name(i) for i in range(2)] == ["sub/2.png", "1.jpg"]
    assert dataset.load(1).boxes_xyxy_px.tolist() == [[0, 0, 60, 40], [12, 15, 18, 25]]


@pytest.mark.parametrize(
    "text",
    [
        "path: elsewhere\nnames: [cat, dog, bird]\n",
        "names: {1: dog, 2: bird, 0: cat}",
        "names: {'0': cat, '1': dog, '2': bird}",
        "cat\ndog\nbird\n\n",
        "cat\r\n  dog\r\nbird",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_names_come_from_a_file_and_their_order_from_the_config(
    folders, tmp_path, text, encoding
) -> None:
    names = tmp_path / "names.yaml"
    names.write_text(text, encoding)
    dataset = open_folders(folders, names=names, class_names=None)
    assert dataset.class_names == ("cat", "dog", "bird")
    dataset = open_folders(folders, names=names, class_names=["bird", "cat", "dog"])
    assert dataset.class_names == ("bird", "cat", "dog")
    assert dataset.annotations.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "names.yaml does not exist"),
        ("names: [a", "names.yaml cannot be read: .*expected"),
        ("nc: 3", "must have `names`: a list of class names, or number: name; or a name a line"),
        ("nc= 2\nnames = a.names", "lists Darknet's files; name the one behind its `names =`"),
        ("names: []", "must have `names`"),
        ("names: {1: a, 2: b}", "keys of `names` must be the class numbers 0, 1, 2"),
        ("names: [a, yes]", "the class name True is no text; put it in quotes"),
        ("names: [a, null]", "the class name None is no text"),
        ("names: [2026-13-01]", "names.yaml cannot be read: month must be in 1..12"),
        ("names: [!!timestamp a]", "names.yaml cannot be read: 'NoneType'"),
        ("names: [a, b, a]", "`names` repeats a; names must differ"),
    ],
)
def test_a_faulty_file_of_names(folders, tmp_path: Path, text, sentence: str) -> None:
    names = tmp_path / "names.yaml"
    if text is not None:
        names.write_text(text)
    with pytest.raises(UserError, match=sentence):
        open_folders(folders, names=names, class_names=None)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 0.5 0.5 0.5", r"has 4 values, but must be `class cx cy w h`"),
        ("0 0.5 0.5 0.5 0.5 0.9 1 1", r"has 8 values, but must be .* or an outline `class x1 y1"),
        ("0 0.5 0.5 0.5 0.5 1.57", r"ends in 1\.57, but a sixth value must be a confidence"),
        ("0 0.1 0.1 0.9 0.1 0.9 90", "is .*, but cx cy w h must be relative to the image"),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 2", r"is .* relative .*; .* need `kpt_shape` in a"),
        ("1.5 0.5 0.5 0.5 0.5", "is '1.5 .*', but must be a whole number and four numbers"),
        ("cat 0.5 0.5 0.5 0.5", "is 'cat 0.5 0.5 0.5 0.5', but must be a whole number and four"),
        ("0 0.5 0,5 0.5 0.5", "is .*, but must be a whole number and four numbers"),
        ("3 0.5 0.5 0.5 0.5", r"has the class 3, but there are the classes 0 to 2 \(cat, dog, b"),
        ("-1 0.5 0.5 0.5 0.5", "has the class -1"),
        ("0 30 20 10 10", "is .*, but cx cy w h must be relative to the image"),
    ],
)
def test_a_faulty_line_is_reported_with_file_and_line(folders, line: str, sentence: str) -> None:
    _, labels = folders
    (labels / "1.txt").write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(UserError, match=rf"^{labels}/1\.txt, line 3 {sentence}"):
        open_folders(folders)
    with pytest.raises(UserError, match=rf"list\.csv, line 1: {labels}/1\.txt, line 3 {sentence}"):
        open_list(folders, "1.jpg,1.txt")


@pytest.mark.parametrize(
    ("line", "box", "notes"),
    [
        ("2.0 0.5 0.5 0.5 0.5", [15, 10, 45, 30], ()),
        ("2 0.5 0.5 0.5 0.5 0.93", [15, 10, 45, 30], ("1 confidences, which are left out",)),
        ("2 0.5 0.1 0.9 0.5 0.1 0.5", [6, 4, 54, 20], ("1 boxes around outlines",)),
        ("2 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5", [6, 4, 54, 36], ("1 boxes around outlines",)),
        ("2 0.5 0.1 0.9 nan 0.1 0.5", None, ("1 boxes around outlines",)),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_other_tools_write(folders, line: str, box, notes, encoding: str) -> None:
    (folders[1] / "1.txt").write_text(f"{line}\r", encoding)
    dataset = open_folders(folders, on_bad_image=print)
    assert dataset.findings.notes[:1] == notes
    boxes = dataset.annotations.boxes_xyxy_px
    np.testing.assert_allclose(boxes, np.reshape([] if box is None else box, (-1, 4)), rtol=1e-6)
    assert (dataset.annotations.labels == 2).all()


@pytest.mark.parametrize("name", ["1.jpg.txt", "1.TXT", "1.JPG.txt", "1.Txt"])
def test_text_files_of_another_spelling_are_found(folders, name: str) -> None:
    (folders[1] / "1.txt").rename(folders[1] / name)
    dataset = open_folders(folders)
    assert dataset.annotations.box_counts().tolist() == [2, 0, 0]
    assert not any("belong to no image" in text for text in dataset.findings.warnings)


def test_each_spelling_has_its_own_file(tmp_path: Path) -> None:
    for name in ("A.png", "a.png", "a.jpg"):
        write_image(tmp_path / name)
    for count, name in enumerate(("a.txt", "A.txt", "a.jpg.txt"), start=1):
        (tmp_path / name).write_text("0 0.5 0.5 1 1\n" * count)
    dataset = open_folders((tmp_path, tmp_path))
    names = [dataset.annotations.file_name(i) for i in range(3)]
    counts = dict(zip(names, dataset.annotations.box_counts().tolist(), strict=True))
    assert counts == {"A.png": 2, "a.png": 1, "a.jpg": 1}
    assert dataset.findings.warnings == (
        f"1 text files in {tmp_path} that belong to no image (a.jpg.txt)",
        "2 images that share a text file (a.jpg, a.png)",
    )


def test_what_finds_no_partner_is_named(folders, tmp_path: Path) -> None:
    images, labels = folders
    (labels / "sub/gone.txt").write_text("0 0.5 0.5 1 1")
    (images / "phone.HEIC").write_text("")
    for name in (".trash/1.jpg", "._1.jpg"):
        write_image(images / "x.jpg").rename(tmp_path / "x.jpg")
        (images / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x.jpg").rename(images / name)
    (images / ".DS_Store").write_text("")
    warnings = (
        "1 images without a text file, which count as background (3.JPEG)",
        f"1 text files in {labels} that belong to no image (sub/gone.txt)",
        "1 pictures of a format that is not read (phone.HEIC)",
        "2 hidden files and folders, which are left out (._1.jpg, .trash)",
    )
    assert open_folders(folders).findings.warnings == warnings
    for number in range(100):  # then it is a small share
        write_image(images / f"more/{number}.jpg")
        (labels / "more").mkdir(exist_ok=True)
        (labels / f"more/{number}.txt").write_text("")
    findings = open_folders(folders).findings
    assert (findings.notes, findings.warnings) == (warnings, ())


def test_linked_folders_are_followed_but_not_upwards(folders, tmp_path: Path) -> None:
    images, labels = folders
    (images / "sub").rename(tmp_path / "elsewhere")
    (images / "sub").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(images)
    (labels / "up").symlink_to(tmp_path)
    (images / "circle").symlink_to(images / "circle")
    dataset = open_folders(folders)
    assert [dataset.annotations.file_name(i) for i in range(3)] == ["1.jpg", "3.JPEG", "sub/2.png"]


@pytest.mark.parametrize("name", ["data.yaml", "labels/classes.txt", "images/obj.names"])
def test_other_names_beside_the_files_are_a_warning(folders, tmp_path: Path, name: str) -> None:
    (folders[1] / "classes.txt").unlink()
    (tmp_path / "dataset.yaml").write_text("no: [names")  # it could not be meant
    path = tmp_path / name
    for names, is_other in ((NAMES, False), (["fox", "owl"], True)):
        path.write_text(f"names: {names}" if path.suffix == ".yaml" else "\n".join(names))
        (warning, *more) = [*open_folders(folders).findings.warnings, ""]
        assert warning.startswith("1 images without") and len(more) == 1 + is_other
    assert more[0] == (
        f"{path} names the classes fox, owl, but here they are cat, dog, bird: see which is right "
        "for these text files"
    )
    with pytest.raises(UserError, match=rf"name a file of their names \({path}\) in the data"):
        open_folders(folders, class_names=None)


def test_boxes_are_sanitized_as_in_every_format(folders: tuple[Path, Path]) -> None:
    _, labels = folders
    lines = ["0 0 0.5 0.5 0.5", "1 0.5 0.5 0 0.5", "1 nan 0.5 0.5 0.5", "1 0.5 0.5 1.0001 1"]
    (labels / "1.txt").write_text("\n".join(lines))
    dataset = open_folders(folders)
    assert dataset.annotations.boxes_xyxy_px.tolist() == [[0, 10, 15, 30], [0, 0, 60, 40]]
    assert dataset.findings.counts == {"clipped": 1, "no area": 1, "not finite": 1}
    assert dataset.findings.texts[1] == (
        f"{labels}/1.txt, line 2 (dog), box [30, 10, 30, 30], dropped (no area) from the image of "
        "60x40 px"
    )


def test_folders_that_cannot_be_meant(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, labels = folders
    (images / "3.JPEG").write_text("no image")
    for settings, sentence in (
        ({"labels": tmp_path / "none"}, r"the folder of text files .*none does not exist"),
        ({"images": labels}, "labels holds no image"),
        ({"labels": images}, r"none of the 3 images .* has a text file in"),
        ({"class_names": None}, r"only number their classes: .* set class_names"),
        ({}, r"the size of the image .*3\.JPEG cannot be read"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_folders(folders, **settings)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"the list .*list\.csv does not exist"),
        ("\n", r"list\.csv lists no image"),
        ("image,annotation\n", "lists no image"),
        ("1.jpg,1.txt\n1.jpg;1.txt", r"list\.csv, line 2 is '1.jpg;1.txt', but must be `image,ann"),
        ("1.jpg,1.txt,7", "line 1 is '1.jpg,1.txt,7', but must be"),
        ("../1.jpg,1.txt", "line 1 is '../1.jpg,1.txt', but .* inside the folders"),
        ("1.jpg,/etc/passwd", "inside the folders"),
        ("1.jpg,1.txt\n./1.jpg,1.txt", r"line 2: 1\.jpg is listed twice, first in .*, line 1;"),
        ("1.jpg,none.txt", r"list\.csv, line 1: the annotation file .*none\.txt does not exist"),
        ("none.jpg,1.txt", r"list\.csv, line 1: the image .*none\.jpg does not exist"),
        ('"1.jpg,1.txt', r"the list .*list\.csv is broken: unexpected end of data"),
    ],
)
def test_a_faulty_list_is_reported_with_its_line(folders, text, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_list(folders, text)


def test_a_list_needs_class_names(folders: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"set class_names"):
        open_list(folders, "1.jpg,1.txt", class_names=None)


def test_text_files_are_cached(folders, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = open_folders(folders, cache=cache)
    (folders[1] / "3.txt").write_text("0 0.5 0.5 1 1\n")
    assert open_folders(folders, cache=cache).annotations.box_counts()[1] == 1
    monkeypatch.setattr(truth_files, "measure", None)  # nothing is measured or parsed again
    again = open_folders(folders, cache=cache)
    assert again.class_names == first.class_names
    assert again.annotations.box_counts().tolist() == [2, 1, 0]
    with pytest.raises(TypeError):  # other names: another entry
        open_folders(folders, cache=cache, class_names=[*NAMES, "fish"])
