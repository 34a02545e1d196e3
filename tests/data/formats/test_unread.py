"""Data sets that open though the headers of some images cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.data.voc_files import voc_object, voc_xml, write_voc
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.data.formats.csv_list import CsvListDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.formats.unread import UnreadImages, nominal_hw
from yolo.data.formats.voc import VocDataset
from yolo.data.formats.yolo_text import YoloTextDataset
from yolo.errors import UserError

Open = Callable[..., DetectionDataset]


def write_formats(folder: Path) -> dict[str, Open]:
    """1 is sound, the header of 2 is broken, 3 leads nowhere; each has one box, in 2 a large one.

    Images of 60x40 px, as only VOC's XML says: of 3 not even that does.
    """
    objects = [voc_object("cat", (31, 11, 60, 40)), voc_object("cat", (31, 11, 460, 40))]
    xmls = [voc_xml(objects[0]), voc_xml(objects[1]), voc_xml(objects[1], size_wh=None)]
    write_voc(folder, dict(zip("123", xmls, strict=True)))
    images, labels = folder / "JPEGImages", folder / "labels"
    labels.mkdir()
    for number in "123":
        (labels / f"{number}.txt").write_text("0 0.75 0.625 0.5 0.75\n")
    (folder / "list.csv").write_text("1.jpg,1.txt\n2.jpg,2.txt\n3.jpg,3.txt\n")
    boxes = ("1.jpg,30,10,60,40,cat", "2.jpg,30,10,460,40,cat", "3.jpg,,,,,", "2.jpg,0,0,1,nan,cat")
    (folder / "boxes.csv").write_text("\n".join(boxes))
    (images / "2.jpg").write_bytes(b"no image")
    (images / "3.jpg").unlink()
    (images / "3.jpg").symlink_to("nowhere.jpg")
    texts = {"images": images, "labels": labels, "class_names": ["cat"]}
    return {
        "voc": partial(VocDataset, root=folder, image_sets=["train"]),
        "yolo_text": partial(YoloTextDataset, **texts),
        "csv_list": partial(CsvListDataset, list=folder / "list.csv", **texts),
        "csv_boxes": partial(CsvBoxesDataset, boxes=folder / "boxes.csv", images=images),
    }


SIZES_AND_BOXES = {
    "voc": [([40, 60], [30, 10, 60, 40]), ([416, 460], [30, 10, 460, 40])],
    "yolo_text": [([416, 416], [208, 104, 416, 416])] * 2,
    "csv_list": [([416, 416], [208, 104, 416, 416])] * 2,
    "csv_boxes": [([416, 460], [30, 10, 460, 40]), ([416, 416], None)],
}
"""Of the images 2 and 3: VOC's annotated size or one that holds the box, else a nominal one."""


@pytest.mark.parametrize("kind", SIZES_AND_BOXES)
def test_the_images_stay_with_their_truth(kind: str, tmp_path: Path) -> None:
    opened = write_formats(tmp_path)[kind]
    with pytest.raises(UserError, match=r"2\.jpg cannot be read"):
        opened()
    told: list[str] = []
    dataset = opened(on_unread=lambda error: told.append(str(error)))
    assert len(told) == 2 and "2.jpg" in told[0] and "/3." in told[1]
    expected = [([40, 60], [30, 10, 60, 40]), *SIZES_AND_BOXES[kind]]
    for index, (size_hw, box) in enumerate(expected):
        assert dataset.image_path(index) == tmp_path / "JPEGImages" / f"{index + 1}.jpg"
        sample = dataset.load(0) if index == 0 else dataset.empty(index)
        assert [*sample.image.shape] == [*size_hw, 3]
        assert sample.boxes_xyxy_px.tolist() == ([] if box is None else [box])
    for index in (1, 2):
        with pytest.raises(UserError):
            dataset.load(index)


def test_a_nominal_size_holds_the_boxes_that_are_finite() -> None:
    inf = float("inf")
    assert nominal_hw() == (416, 416)
    assert nominal_hw([[0, 0, 500.2, 10], [0, 0, 10, 600], [0, 0, inf, 9]]) == (600, 501)
    assert nominal_hw([[0, 0, 1e300, 10]]) == (416, 13_377)
    assert nominal_hw([[0, 0, 9, 9]], (7, 8)) == (7, 8)
    assert nominal_hw([[0, 0, 9, 9]], (2**31 - 1, 8)) == (416, 416)  # no image is as large


def test_the_share_is_judged_by_all_images() -> None:
    unread = UnreadImages()
    for number in range(3):
        unread.note(UserError(f"{number}.jpg is broken."))
    unread.check(300, 0.01)
    with pytest.raises(UserError, match=r"3 of the 299 images .* allows 2; .* one: 2\.jpg"):
        unread.check(299, 0.01)
