from dataclasses import replace

import numpy as np
import pytest
import torch

from yolo.boxes import cxcywh_to_xyxy
from yolo.records import Batch, Detections, Sample, Targets


def sample(image_id: int, boxes: list[list[float]], *, ignored: bool = False) -> Sample:
    """An image of 40 x 40 in a colour of its own."""
    return Sample(
        image=np.full((40, 40, 3), (image_id, 10, 20), np.uint8),
        boxes_xyxy_px=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(len(boxes)) + image_id,
        ignored=np.full(len(boxes), ignored),
        image_id=image_id,
        original_size_hw=(30 + image_id, 90),
    )


SAMPLES = [
    sample(7, [[0, 0, 40, 40], [10, 20, 14, 30]]),
    sample(8, []),
    sample(9, [[4, 8, 12, 16]], ignored=True),
]


def test_targets_are_packed_in_the_order_of_the_images() -> None:
    targets = Targets.from_samples(SAMPLES)
    assert len(targets) == 3 and targets.max_per_image == 2
    expected = torch.tensor([[0.5, 0.5, 1, 1], [0.3, 0.625, 0.1, 0.25], [0.2, 0.3, 0.2, 0.2]])
    torch.testing.assert_close(targets.boxes_cxcywh_norm, expected)
    assert targets.labels.tolist() == [7, 8, 9]
    assert targets.image_index.tolist() == [0, 0, 2]
    assert targets.ignored.tolist() == [False, False, True]
    back = cxcywh_to_xyxy(targets.boxes_cxcywh_norm) * 40
    torch.testing.assert_close(back[2].numpy(), SAMPLES[2].boxes_xyxy_px[0])


def test_the_frame_of_a_box_is_its_own_image() -> None:
    image, box = np.zeros((10, 100, 3), np.uint8), np.array([[50, 5, 100, 10]], np.float32)
    wide = replace(sample(1, [[0] * 4]), image=image, boxes_xyxy_px=box)
    targets = Targets.from_samples([wide])
    assert targets.boxes_cxcywh_norm.tolist() == [[0.75, 0.75, 0.5, 0.5]]


def test_no_boxes_at_all() -> None:
    targets = Targets.from_samples([sample(1, []), sample(2, [])])
    assert len(targets) == 0 and targets.max_per_image == 0
    assert targets.boxes_cxcywh_norm.shape == (0, 4)
    assert targets.labels.dtype == targets.image_index.dtype == torch.int64
    assert targets.ignored.dtype == torch.bool


def test_a_box_that_is_not_finite_is_noticed_when_it_is_packed_and_by_all_copies() -> None:
    assert Batch.from_samples(SAMPLES).targets.is_finite
    for number in (np.nan, np.inf):
        batch = Batch.from_samples([*SAMPLES, sample(10, [[0, 0, number, 5]])])
        copied = batch.to(torch.device("meta"))
        assert batch.targets.is_finite is copied.targets.is_finite is False


def test_a_batch_is_channels_last_and_shares_its_pixels() -> None:
    batch = Batch.from_samples(SAMPLES)
    assert batch.images.shape == (3, 3, 40, 40) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images[2, :, 5, 5].tolist() == [9, 10, 20]
    assert batch.image_ids.tolist() == [7, 8, 9]
    assert batch.original_sizes_hw.tolist() == [[37, 90], [38, 90], [39, 90]]
    assert len(batch) == 3


def test_everything_moves_to_the_device_but_what_the_host_needs() -> None:
    batch = Batch.from_samples(SAMPLES).to(torch.device("meta"))
    moved = (batch.images, batch.targets.boxes_cxcywh_norm, batch.targets.labels)
    moved += (batch.targets.image_index, batch.targets.ignored)
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert {batch.image_ids.device.type, batch.original_sizes_hw.device.type} == {"cpu"}
    assert batch.targets.max_per_image == 2


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 3), (0.5, 2), (0.51, 1), (0.95, 0)])
def test_above_keeps_scores_of_at_least_the_threshold(threshold: float, count: int) -> None:
    scores = torch.tensor([0.9, 0.5, 0.1])
    found = Detections(torch.arange(12.0).view(3, 4), scores, torch.arange(3))
    kept = found.above(threshold)
    assert len(kept) == len(kept.boxes_xyxy_px) == count
    assert kept.labels.tolist() == list(range(count))
    rows = [(box[0], round(score, 6), label) for box, score, label in found.rows()]
    assert rows == [(0, 0.9, 0), (4, 0.5, 1), (8, 0.1, 2)]
