"""Truth -> assignment -> raw maps -> coder -> suppression gives the truth back."""

import numpy as np
import pytest
import torch

from tests.detectors import make_config
from yolo.apps.preflight.truth import encode_truth
from yolo.boxes import cxcywh_to_xyxy, pairwise_iou
from yolo.detection.postprocess import Postprocess
from yolo.factory.detector import build_coder
from yolo.models.necks import NECKS
from yolo.records import Targets

SIZE_PX, IMAGES, CLASSES = 320, 6, 5


def random_truths() -> Targets:
    """Up to 8 boxes in an image, from 5% of its side to all of it, anywhere."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 9, IMAGES)
    size = np.exp(rng.uniform(np.log(0.05), 0, (counts.sum(), 2)))
    centre = size / 2 + rng.random(size.shape) * (1 - size)
    return Targets(
        boxes_cxcywh_norm=torch.from_numpy(np.concatenate([centre, size], axis=1)).float(),
        labels=torch.from_numpy(rng.integers(0, CLASSES, counts.sum())),
        image_index=torch.from_numpy(np.repeat(np.arange(IMAGES), counts)),
        ignored=torch.zeros(int(counts.sum()), dtype=torch.bool),
        max_per_image=int(counts.max()),
    )


@pytest.mark.parametrize("neck", NECKS)
def test_every_truth_with_a_place_comes_back(neck):
    targets = random_truths()
    coder = build_coder(make_config("darknet_tiny", neck, image_size=SIZE_PX))
    raw, placed = encode_truth(coder, targets, images=IMAGES, size_px=SIZE_PX, classes=CLASSES)
    assert placed.float().mean() > 0.75  # the others share a cell with an earlier or a later one
    found = Postprocess(conf=0.5, iou=1.0)(*coder(raw))
    truths_px = cxcywh_to_xyxy(targets.boxes_cxcywh_norm * SIZE_PX)
    for image, detections in enumerate(found):
        mine = (targets.image_index == image) & placed
        assert len(detections) == int(mine.sum())
        if not len(detections):
            continue
        overlap, which = pairwise_iou(truths_px[mine], detections.boxes_xyxy_px).max(dim=1)
        assert overlap.min() > 0.999
        assert detections.labels[which].tolist() == targets.labels[mine].tolist()
        assert detections.scores.min() > 0.999
