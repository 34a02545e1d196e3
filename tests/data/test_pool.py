from __future__ import annotations

import numpy as np

from yolo.data.pool import DecodedPool
from yolo.records import Sample

IMAGE_BYTES = 10 * 10 * 3


class Loads:
    """Samples of 300 bytes, and the indices that were loaded."""

    def __init__(self) -> None:
        self.indices: list[int] = []

    def __call__(self, index: int) -> Sample:
        self.indices.append(index)
        none = np.zeros(0, np.int64)
        image = np.full((10, 10, 3), index, np.uint8)
        return Sample(image, np.zeros((0, 4), np.float32), none, none.astype(bool), index, (10, 10))


def test_what_was_not_wanted_for_longest_is_loaded_again() -> None:
    loads = Loads()
    pool = DecodedPool(loads, limit_bytes=2 * IMAGE_BYTES)
    given = [pool.load(index).image_id for index in (1, 2, 1, 3, 1, 2)]
    assert given == [1, 2, 1, 3, 1, 2]
    assert loads.indices == [1, 2, 3, 2]


def test_an_image_that_does_not_fit_leaves_the_others() -> None:
    loads = Loads()
    pool = DecodedPool(loads, limit_bytes=IMAGE_BYTES - 1)
    assert [pool.load(index).image_id for index in (1, 1)] == [1, 1]
    assert loads.indices == [1, 1]
