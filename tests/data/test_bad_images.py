"""Images that cannot be read: data sets that open all the same, and what takes their place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.data.voc_files import voc_object, voc_xml, write_voc
from yolo.data.bad_images import ImagesOrEmpty, TolerantImages, check_bad_share, nominal_hw
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.formats.voc import VocDataset
from yolo.data.formats.yolo_text import YoloTextDataset
from yolo.errors import UserError
from yolo.records import Sample

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
        "csv_list": partial(YoloTextDataset, list=folder / "list.csv", **texts),
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
    errors: list[str] = []
    dataset = opened(on_bad_image=lambda error: errors.append(str(error)))
    assert len(errors) == 2 and "2.jpg" in errors[0] and "/3." in errors[1]
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
    check_bad_share(3, 300, 0.01, "2.jpg is broken.")
    assert check_bad_share(29, 100, 0.29, "2.jpg is broken.") == 29  # 0.29 * 100 < 29 in floats
    with pytest.raises(UserError, match=r"3 of the 299 images .* allows 2; .* one: 2\.jpg"):
        check_bad_share(3, 299, 0.01, "2.jpg is broken.")


class Numbers:
    """Ten images whose id is their place; some cannot be read."""

    def __init__(self, bad: dict[int, Exception]) -> None:
        self.bad = bad
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 10

    def load(self, index: int) -> Sample:
        self.asked.append(index)
        if index in self.bad:
            raise self.bad[index]
        return self.sample(index, 1)

    def empty(self, index: int) -> Sample:
        return self.sample(index, 0)

    def sample(self, index: int, pixel: int) -> Sample:
        image = np.full((4, 6, 3), pixel, np.uint8)
        box = np.array([[0, 0, 6, 4]], np.float32)
        return Sample(image, box, np.zeros(1, np.int64), np.zeros(1, bool), index, (4, 6))


BAD = {3: UserError("three.jpg is damaged."), 9: PermissionError(13, "Permission denied", "nine")}


def test_the_next_readable_image_takes_the_place(caplog: pytest.LogCaptureFixture) -> None:
    images = Numbers({**BAD, 4: UserError("four.jpg is damaged.")})
    tolerant = TolerantImages(images, max_bad_share=0.3)
    with caplog.at_level(logging.WARNING):
        first = [tolerant.load(index).image_id for index in range(10)]
        images.asked.clear()
        second = [tolerant.load(index).image_id for index in reversed(range(10))]
    assert first == second[::-1] == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]
    assert len(caplog.messages) == 3
    assert caplog.messages[0] == (
        "three.jpg is damaged; the next readable image takes its place (bad image 1 of at most 3)"
    )
    assert not {3, 4, 9} & set(images.asked)  # known to be bad


def test_in_evaluation_an_empty_image_keeps_the_truth(caplog: pytest.LogCaptureFixture) -> None:
    tolerant = ImagesOrEmpty(Numbers(BAD), max_bad_share=0.2)
    for _ in range(2):
        samples = [tolerant.load(index) for index in range(10)]
        assert [sample.image_id for sample in samples] == [*range(10)]
        assert [int(sample.image.max()) for sample in samples] == [1, 1, 1, 0, 1, 1, 1, 1, 1, 0]
        assert all(len(sample.boxes_xyxy_px) == 1 for sample in samples)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("wrapper", [TolerantImages, ImagesOrEmpty])
def test_too_many_bad_images_end_the_run(wrapper) -> None:
    tolerant = wrapper(Numbers(BAD), max_bad_share=0.1)
    tolerant.load(3)
    sentence = r"2 of the 10 images cannot be read, and max_bad_share 0.1 allows 1"
    with pytest.raises(UserError, match=sentence):
        tolerant.load(9)


def test_no_readable_image_at_all() -> None:
    bad = {index: UserError(f"{index}.jpg is damaged.") for index in range(10)}
    with pytest.raises(UserError, match="none of the 10 images"):
        TolerantImages(Numbers(bad), max_bad_share=1.0).load(4)


def test_a_bug_is_no_bad_image() -> None:
    with pytest.raises(ZeroDivisionError):
        TolerantImages(Numbers({3: ZeroDivisionError()}), max_bad_share=1.0).load(3)
