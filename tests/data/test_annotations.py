from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest

from yolo.data.annotations import Annotations


def packed() -> Annotations:
    """Three images with 2, 0 and 1 boxes, given out of order."""
    return Annotations.pack(
        image_ids=np.array([7, 5, 9]),
        file_names=["a.jpg", "ordner/ü.jpg", "c.png"],
        sizes_hw=np.array([[10, 20], [30, 40], [50, 60]]),
        image_index=np.array([2, 0, 0]),
        boxes_xyxy_px=np.array([[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]], np.float64),
        labels=np.array([4, 1, 0]),
        ignored=np.array([True, False, True]),
    )


def test_boxes_are_sorted_by_image_and_keep_their_order_within_it() -> None:
    annotations = packed()
    truth = [array.tolist() for array in annotations.truth(0)]
    assert truth == [[[5, 6, 7, 8], [0, 0, 9, 9]], [1, 0], [False, True]]
    assert annotations.box_counts().tolist() == [2, 0, 1]
    assert annotations.image_index().tolist() == [0, 0, 2]
    assert annotations.file_name(1) == "ordner/ü.jpg"
    assert annotations.size_hw(1) == (30, 40)
    assert all(isinstance(getattr(annotations, name), np.ndarray) for name in annotations.__slots__)


def test_subset_follows_the_given_order_and_may_repeat() -> None:
    subset = packed().subset([2, 1, 0, 2])
    assert subset.image_ids.tolist() == [9, 5, 7, 9]
    assert [subset.file_name(i) for i in range(4)] == ["c.png", "ordner/ü.jpg", "a.jpg", "c.png"]
    assert subset.box_counts().tolist() == [1, 0, 2, 1]
    assert subset.truth(3)[0].tolist() == [[1, 2, 3, 4]]
    assert subset.truth(2)[1].tolist() == [1, 0]
    assert len(packed().subset([])) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_forked_worker_that_reads_everything_copies_nothing() -> None:
    images, boxes = 50_000, 1_000_000  # 23 MB
    annotations = Annotations.pack(
        image_ids=np.arange(images),
        file_names=[f"{i:012}.jpg" for i in range(images)],
        sizes_hw=np.full((images, 2), 640),
        image_index=np.arange(boxes) % images,
        boxes_xyxy_px=np.ones((boxes, 4), np.float32),
        labels=np.zeros(boxes),
        ignored=np.zeros(boxes, bool),
    )
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_read_all, args=(annotations, sender))
    worker.start()
    copied_kb = receiver.recv()
    worker.join()
    assert copied_kb < 4096


def _read_all(annotations: Annotations, sender: object) -> None:
    before = _private_kb()
    for index in range(0, len(annotations), 10):
        annotations.file_name(index)
        annotations.truth(index)[0].sum()
    sender.send(_private_kb() - before)


def _private_kb() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))
