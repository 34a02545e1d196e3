"""Images that cannot be read: who takes their place, and how often they are told of."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from yolo.data.tolerance import ImagesOrEmpty, TolerantImages
from yolo.errors import UserError
from yolo.records import Sample


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
    with pytest.raises(
        UserError, match=r"2 of the 10 images cannot be read, and data.max_bad_share 0.1 allows 1"
    ):
        tolerant.load(9)


def test_no_readable_image_at_all() -> None:
    bad = {index: UserError(f"{index}.jpg is damaged.") for index in range(10)}
    with pytest.raises(UserError, match="none of the 10 images"):
        TolerantImages(Numbers(bad), max_bad_share=1.0).load(4)


def test_a_bug_is_no_bad_image() -> None:
    with pytest.raises(ZeroDivisionError):
        TolerantImages(Numbers({3: ZeroDivisionError()}), max_bad_share=1.0).load(3)
