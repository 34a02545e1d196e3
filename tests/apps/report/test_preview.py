"""The pictures of a training batch show what the network gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.coco_files import write_coco
from tests.detectors import ONE_RANK, make_config
from yolo.apps.report.drawing import class_colour
from yolo.apps.report.preview import build_normalise, denormalise, draw_step, training_step
from yolo.config import Config, config_from_dict
from yolo.factory.data import build_dataset, build_training_batches

SIZE_PX = 320
WHITE = 255


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Three black images with a white object each and, beside it, a region to be ignored."""
    pictures, boxes = {}, []
    for number, (width, height) in enumerate([(200, 120), (90, 240), (300, 300)], start=1):
        pictures[number] = np.zeros((height, width, 3), np.uint8)
        x, y, w, h = width // 8, height // 4, width // 4, height // 3
        pictures[number][y : y + h, x : x + w] = WHITE
        boxes += [(number, 0, [x, y, w, h], False), (number, 1, [width // 2, y, w, h], True)]
    content = make_config(image_size=SIZE_PX).model_dump(mode="json")
    content["data"]["train"] = write_coco(tmp_path, pictures, boxes, [".", "crowd"])
    content["data"]["augment"] = [
        {"type": "HorizontalFlip", "p": 0.5},
        {"type": "Affine", "p": 1.0, "scale": [0.8, 1.0], "keep_ratio": True},
    ]
    content["data"]["workers"] = 0
    content["training"] |= {"batch_size": 4, "micro_batch_size": 2}
    return config_from_dict(content)


def test_the_micro_batches_are_those_of_the_training_at_that_step(config: Config) -> None:
    dataset = build_dataset(config, "train")
    stream = build_training_batches(config, dataset, ONE_RANK).from_step(0)
    for step in range(3):  # over the border of the first epoch
        for ours in training_step(config, dataset, step):
            theirs = next(stream)
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.targets.boxes_cxcywh_norm, theirs.targets.boxes_cxcywh_norm)
            assert ours.image_ids.tolist() == theirs.image_ids.tolist()


@pytest.mark.parametrize("preprocessing", ["unit_range", "imagenet"])
def test_denormalised_pixels_are_the_images_own(config: Config, preprocessing: str) -> None:
    model = config.model.model_copy(update={"preprocessing": preprocessing})
    normalise = build_normalise(config.model_copy(update={"model": model}), ["cat"])
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    pixels = denormalise(normalise(every), normalise)
    np.testing.assert_array_equal(pixels, every.permute(0, 2, 3, 1).numpy())


def test_the_drawn_boxes_lie_around_the_objects(config: Config) -> None:
    dataset = build_dataset(config, "train")
    batches = training_step(config, dataset, 5)
    normalise = build_normalise(config, dataset.class_names)
    tiles = list(draw_step(batches, normalise, dataset.class_names))
    images = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in batches])
    assert len(tiles) == len(images) == 4
    for tile, image in zip(tiles, images, strict=True):
        drawn = tile[-SIZE_PX:]
        rows, columns = np.nonzero((image > 200).all(axis=-1))
        ys, xs = np.nonzero((drawn == class_colour(0)).all(axis=-1))
        assert abs(xs.min() - columns.min()) <= 2 and abs(xs.max() - columns.max()) <= 2
        assert abs(ys.max() - rows.max()) <= 2
        assert (drawn == class_colour(1)).all(axis=-1).any()
