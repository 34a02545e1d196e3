from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data.voc_files import voc_object, voc_xml, write_image, write_voc
from yolo.data.formats.voc import VocDataset
from yolo.errors import UserError

DOG = voc_object("dog", (5, 6, 20, 30))
XML, JPEG, TRAIN = "Annotations/b.xml", "JPEGImages/b.jpg", "ImageSets/Main/train.txt"
ZEBRA = voc_object("zebra", (1, 2, 3, 4))


def open_voc(root: Path, *image_sets: str, **settings: object) -> VocDataset:
    return VocDataset(root=root, image_sets=image_sets or ["train"], **settings)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    cat = voc_object("cat", (1, 1, 60, 40), difficult=1)
    write_voc(tmp_path / "VOC2007", {"000005": voc_xml(cat, DOG), "000012": voc_xml()}, "trainval")
    write_voc(tmp_path / "VOC2012", {"2007_000012": voc_xml(DOG)}, "trainval")
    return tmp_path


def test_years_are_joined_and_pixels_become_edges(devkit: Path) -> None:
    dataset = open_voc(devkit, "2007/trainval", "2012/trainval")
    assert (dataset.class_names, dataset.category_ids) == (("cat", "dog"), (1, 2))
    assert dataset.annotations.image_ids.tolist() == [5, 12, 2007000012]
    assert dataset.annotations.box_counts().tolist() == [2, 0, 1]
    assert [dataset.image_name(i) for i in range(3)] == ["000005", "000012", "2007_000012"]
    assert dataset.image_path(2) == devkit / "VOC2012/JPEGImages/2007_000012.jpg"
    sample = dataset.load(0)
    assert sample.image.shape == (40, 60, 3)
    # the whole image counts pixels 1..60 and 1..40, both included
    assert sample.boxes_xyxy_px.tolist() == [[0, 0, 60, 40], [4, 5, 20, 30]]
    assert sample.labels.tolist() == [0, 1]
    assert sample.ignored.tolist() == [True, False]
    assert dataset.findings.counts == {}


def test_class_names_give_the_order_and_may_be_more(devkit: Path) -> None:
    dataset = open_voc(devkit, "2007/trainval", class_names=["dog", "horse", "cat"])
    assert dataset.class_names == ("dog", "horse", "cat")
    assert dataset.annotations.labels.tolist() == [2, 0]


def test_boxes_are_clipped_or_dropped_counted_and_reported_with_their_place(tmp_path: Path) -> None:
    boxes = [
        (0, 5, 20, 30),  # someone who counts from 0: clipped on the left
        (50.5, 20.25, 60.01, 40),  # VOC 2011 has fractions; out by a rounding error
        (50, 20, 70, 40),
        (21, 5, 20, 30),  # no width
        (20, 5, 20, 30),  # one pixel wide
        ("nan", 5, 20, 30),
    ]
    write_voc(tmp_path, {"a": voc_xml(*(voc_object("dog", box) for box in boxes))})
    dataset = open_voc(tmp_path)
    kept = [[0, 4, 20, 30], [49.5, 19.25, 60, 40], [49, 19, 60, 40], [19, 4, 20, 30]]
    assert dataset.annotations.boxes_xyxy_px.tolist() == kept
    assert dataset.findings.counts == {"clipped": 2, "no area": 1, "not finite": 1}
    assert dataset.findings.texts[0] == (
        f"{tmp_path}/ImageSets/Main/train.txt, line 1: {tmp_path}/Annotations/a.xml, object 1 "
        "(dog), box [-1, 4, 20, 30], clipped to the image of 60x40 px"
    )
    assert "object 4 (dog), box [20, 4, 20, 30], dropped (no area)" in dataset.findings.texts[2]


@pytest.mark.parametrize("size_wh", [None, (0, 0), (40, 60), (600, 400)])
def test_the_image_decides_on_its_size(tmp_path: Path, size_wh: tuple[int, int] | None) -> None:
    write_voc(tmp_path, {"a": voc_xml(DOG, size_wh=size_wh)})
    dataset = open_voc(tmp_path)
    sample = dataset.load(0)
    assert sample.original_size_hw == sample.image.shape[:2] == (40, 60)
    assert sample.boxes_xyxy_px.tolist() == [[4, 5, 20, 30]]
    if size_wh in (None, (0, 0)):
        assert dataset.findings.counts == {}
    else:
        assert dataset.findings.counts == {"in an image of another size than annotated": 1}
        text = "stays in the image of 60x40 px, annotated as {}x{} px".format(*size_wh)
        assert dataset.findings.texts[0].endswith(text)


def test_a_size_that_exif_explains_is_right(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_xml(DOG, size_wh=(40, 60))})
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    Image.new("RGB", (60, 40)).save(tmp_path / "JPEGImages/a.jpg", exif=exif)
    dataset = open_voc(tmp_path)
    assert dataset.findings.counts == {}
    assert dataset.load(0).image.shape == (60, 40, 3)


@pytest.mark.parametrize(
    ("files", "file_name", "found"),
    [
        (["a.png"], "", "a.png"),
        (["a.jpg", "a.png"], "a.png", "a.png"),
        (["a.jpg", "b.jpg"], "b.jpg", "a.jpg"),  # the list decides: <filename> is often a copy's
        (["b.bmp"], "b.bmp", "b.bmp"),
        (["sub/a.JPG"], "sub/a.JPG", "sub/a.JPG"),
        (["sub/a.JPG", "a.jpg"], "sub/a.JPG", "sub/a.JPG"),
        (["a.JPG"], "a", "a.JPG"),
        (["a.JPG"], "a.jpg", "a.JPG"),
        (["A.Tiff"], "", "A.Tiff"),
        (["A.jpg", "a.png"], "", "a.png"),
        (["a.png", "a.jpg"], "", "a.jpg"),
        (["B.PNG"], "b", "B.PNG"),
        (["a.jpg"], "/home/someone/pictures/a.jpg", "a.jpg"),
        (["a.jpg"], "../a.jpg", "a.jpg"),
        (["a.jpg"], "C:\\pictures\\a.jpg", "a.jpg"),
        (["b.jpg"], "C:\\pictures\\b.jpg", "b.jpg"),
        (["a.jpg"], "sub\\a.jpg", "a.jpg"),
        (["sub/a.jpg"], "sub\\a.jpg", "sub/a.jpg"),
    ],
)
def test_the_image_is_found_by_its_listed_name_or_the_xmls(tmp_path, files, file_name, found):
    write_voc(tmp_path, {"a": voc_xml(DOG, file_name=file_name)})
    (tmp_path / "JPEGImages/a.jpg").unlink()
    for name in files:
        write_image(tmp_path / "JPEGImages" / name)
    assert open_voc(tmp_path).annotations.file_name(0) == f"JPEGImages/{found}"


def test_a_path_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    write_voc(tmp_path / "set", {"a": voc_xml(DOG, file_name="../../secret.jpg")})
    (tmp_path / "set/JPEGImages/a.jpg").rename(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match=r"a\.xml has no image: .* and no '\.\./\.\./secret\.jpg';"):
        open_voc(tmp_path / "set")


@pytest.mark.parametrize(
    ("lines", "xml"),
    [
        ("a.jpg\nb.JPG\n", "a.xml"),
        ("./JPEGImages/a.jpg ./Annotations/a.xml\nJPEGImages/b.jpg Annotations/b.xml\n", "a.xml"),
        ("/home/me/VOC/JPEGImages/a.jpg\nC:\\VOC\\JPEGImages\\b.jpg\r\n", "a.xml"),
        ("a.xml\nb.xml\n", "a.xml"),
        ("A\nB\n", "a.xml"),
        ("a\nb\n", "a.XML"),
        ("a\nb\n", "A.xml"),
        ("a.jpg\nb\n", "a.jpg.xml"),
    ],
)
def test_a_list_means_the_names_of_the_xmls(tmp_path: Path, lines: str, xml: str) -> None:
    write_voc(tmp_path, {"a": voc_xml(DOG), "b": voc_xml(DOG)})
    (tmp_path / TRAIN).write_text(lines)
    (tmp_path / "Annotations/a.xml").rename(tmp_path / "Annotations" / xml)
    (tmp_path / "Annotations/._a.xml").write_text("of another system")
    for image_set in ("train", "*"):
        dataset = open_voc(tmp_path, image_set)
        files = [dataset.annotations.file_name(i) for i in range(2)]
        assert files == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]


@pytest.mark.parametrize(
    ("difficult", "ignored"),
    [("False", False), ("no", False), ("None", False), ("TRUE", True), ("Yes", True), ("1", True)],
)
def test_difficult_in_words(tmp_path: Path, difficult: str, ignored: bool) -> None:
    write_voc(tmp_path, {"a": voc_xml(voc_object("dog", (1, 2, 3, 4), difficult))})
    assert open_voc(tmp_path).annotations.ignored.tolist() == [ignored]


@pytest.mark.parametrize("names", [("a", "b"), ("x7", "y7")])
def test_a_star_takes_every_xml_without_a_list(tmp_path: Path, names: tuple[str, str]) -> None:
    write_voc(tmp_path, {names[1]: voc_xml(DOG), names[0]: voc_xml()})
    (tmp_path / TRAIN).unlink()
    dataset = open_voc(tmp_path, "*")
    assert (dataset.image_name(0), dataset.image_name(1)) == names
    # digits that do not tell them apart, and names without any: the places are the ids
    assert dataset.annotations.image_ids.tolist() == [1, 2]


WITHOUT_YMAX = DOG.replace("ymax>", "bottom>")
LAUGHS = (
    '<!DOCTYPE a [<!ENTITY l0 "ha">'
    + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    + "]>"
)


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        ("", r"is empty"),
        ("<annotation><object></annotation>", r"is broken XML: mismatched tag: line 1"),
        ("\xff\xfe\x00", r"is broken XML"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', r"(is broken|cannot)"),
        ("<html/>", r"holds <html>, but a VOC annotation is an <annotation>"),
        (voc_xml(DOG.replace("name>", "title>")), "object 1 has no <name>"),
        (voc_xml(DOG, WITHOUT_YMAX), r"object 2 \(dog\): <ymax> in its <bndbox> is missing"),
        (voc_xml(voc_object("dog", (1, "x", 3, 4))), "<ymin> in its <bndbox> is 'x', but must be"),
        (voc_xml(voc_object("dog", (1, 2, 3, 4), "maybe")), "<difficult> is 'maybe', but must be"),
        (voc_xml(DOG, ZEBRA), r"2 is of the class 'zebra', which class_names lacks \(dog, cat\); "),
        (LAUGHS + voc_xml(DOG).replace("dog", "&l9;"), "is refused: it defines entities"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + voc_xml(DOG), "is refused"),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "http://x/y">%x;]>' + voc_xml(DOG), "is refused"),
    ],
)
def test_a_faulty_xml_is_one_sentence_with_its_place(tmp_path: Path, xml, sentence: str) -> None:
    write_voc(tmp_path, {"b": voc_xml(DOG), "a": ""})
    (tmp_path / "Annotations/a.xml").write_text(xml, "latin-1")
    with pytest.raises(UserError, match=rf"^.*/train\.txt, line 2: .*a\.xml.*{sentence}") as raised:
        open_voc(tmp_path, class_names=["dog", "cat"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "text", "sentence"),
    [
        (XML, None, r"train\.txt, line 2: the annotation file .*b\.xml does not exist"),
        (JPEG, None, r"line 2: .*b\.xml has no image: .* has no JPEGImages/b\.jpg, none"),
        (TRAIN, None, r"train\.txt does not exist; it has test, and '\*' takes every XML"),
        (TRAIN, "", "lists no image"),
        (TRAIN, "a\n\n../../etc/passwd\n", r"train\.txt, line 3: '../../etc/passwd' leads out of"),
        (TRAIN, "a\nb\na", r"\.txt, line 3: JPEGImages/a is listed twice, first in .*, line 1;"),
    ],
)
def test_a_fault_is_reported_with_its_place(tmp_path: Path, path, text, sentence) -> None:
    write_voc(tmp_path, {"a": voc_xml(DOG), "b": voc_xml(DOG)})
    write_voc(tmp_path, {"c": voc_xml(DOG)}, "test")
    (tmp_path / path).unlink()
    if text is not None:
        (tmp_path / path).write_text(text)
    with pytest.raises(UserError, match=sentence):
        open_voc(tmp_path)


@pytest.mark.parametrize(
    ("folder", "image_set", "sentence"),
    [
        (".", "trainval", r"no image set 'trainval'.* it has 2007/trainval, 2012/tr"),
        (".", "2008/trainval", r"no image set '2008/trainval'.*VOC2008/Annotations;"),
        (".", "../VOC2007/trainval", r"no image set '../VOC2007/trainval'"),
        ("nowhere", "train", "nowhere does not exist"),
        ("bare", "train", r"hold no object; .* name the classes"),
    ],
)
def test_a_wrong_folder_names_what_there_is(devkit: Path, folder, image_set, sentence) -> None:
    write_voc(devkit / "bare", {"a": voc_xml()})
    with pytest.raises(UserError, match=sentence):
        open_voc(devkit / folder, image_set)


def plainly_read(path: Path) -> Iterator[tuple[str, bool, list[float]]]:
    """The objects of an XML, read in another way."""
    for found in ET.parse(path).getroot().findall("object"):
        corners = [found.find(f"bndbox/{tag}").text for tag in ("xmin", "ymin", "xmax", "ymax")]
        yield found.find("name").text, found.find("difficult").text == "1", [*map(float, corners)]


@pytest.mark.parametrize(
    ("folder", "image_sets", "images"),
    [
        ("bccd", ["train"], 205),
        ("bccd", ["val"], 87),
        ("bccd", ["test"], 72),
        ("bccd", ["trainval", "test"], 364),
        ("voc-sample", ["*"], 100),
    ],
)
def test_real_folders_are_read_whole(real_data: Path, folder, image_sets, images) -> None:
    root = real_data / folder
    dataset = open_voc(root, *image_sets)
    assert len(dataset) == len(set(dataset.annotations.image_ids.tolist())) == images
    assert dataset.findings.counts == {}
    if folder == "bccd":
        assert dataset.class_names == ("Platelets", "RBC", "WBC")
    for index in range(images):
        boxes, labels, ignored = dataset.annotations.truth(index)
        wanted = [*plainly_read(root / "Annotations" / f"{dataset.image_name(index)}.xml")]
        names = [dataset.class_names[label] for label in labels]
        inclusive = boxes + np.array([1, 1, 0, 0])
        found = zip(names, ignored.tolist(), inclusive.tolist(), strict=True)
        assert [*found] == wanted
    image = cv2.imread(str(dataset.image_path(images // 2)))
    assert dataset.load(images // 2).image.shape == image.shape


def test_images_without_an_xml_are_named_where_every_xml_is_taken(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {name: voc_xml(voc_object("cat", (1, 1, 9, 9))) for name in "123"})
    (folder / "Annotations/3.xml").unlink()
    (folder / "ImageSets/Main/train.txt").write_text("1\n2\n")
    for image_set, warnings in (
        ("*", ("1 images without an XML, left out (JPEGImages/3.jpg)",)),
        ("train", ()),
    ):
        dataset = VocDataset(root=folder, image_sets=[image_set])
        assert [dataset.image_name(i) for i in range(len(dataset))] == ["1", "2"]
        assert dataset.findings.warnings == warnings
