"""COCO's metric at the size of its validation set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.figures import Figure, Goal, Settings
from benchmarks.timing import take_turns
from yolo.evaluate.metrics.coco import CocoMetric
from yolo.evaluate.metrics.metric import DetectedBoxes

CLASSES = 80
IMAGE_SIZE_PX = 640
SECONDS = Goal("at most", 1)


def measure_coco_metric(settings: Settings) -> Iterator[Figure]:
    """Seconds for all detections at once, and with the truth's own preparation before it."""
    images, boxes, detections = (50, 300, 2_000) if settings.tiny else (5_000, 36_781, 200_000)
    truth = random_truth(images, boxes)
    found = random_detections(truth, detections)
    metric = CocoMetric(ground_truth=truth, backend="hotcoco")
    seconds = take_turns(
        {
            "evaluate": lambda: metric.evaluate(found),
            "both": lambda: CocoMetric(ground_truth=truth, backend="hotcoco").evaluate(found),
        },
        rounds=settings.rounds,
    )
    sizes = f"{detections:,} detections, {images:,} images"
    goal = None if settings.tiny else SECONDS
    yield Figure(f"hotcoco, {sizes}", seconds.median("evaluate"), "s", goal)
    yield Figure(f"hotcoco, {sizes}, truth prepared anew", seconds.median("both"), "s")
    if settings.slow:
        yield Figure(f"pycocotools, {sizes}, once", _pycocotools_seconds(truth, found), "s")


def _pycocotools_seconds(truth: dict[str, Any], found: DetectedBoxes) -> float:
    metric = CocoMetric(ground_truth=truth, backend="pycocotools")
    start = time.perf_counter()
    metric.evaluate(found)
    return time.perf_counter() - start


def random_truth(images: int, boxes: int) -> dict[str, Any]:
    """A COCO json with boxes of all sizes, 1% of them crowds."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(8), np.log(300), (boxes, 2)))
    corners = rng.uniform(0, IMAGE_SIZE_PX - sizes)
    annotations = [
        {
            "id": number + 1,
            "image_id": int(rng.integers(images)),
            "category_id": int(rng.integers(1, CLASSES + 1)),
            "bbox": [*corners[number].tolist(), *sizes[number].tolist()],
            "area": float(sizes[number].prod()),
            "iscrowd": int(rng.random() < 0.01),
        }
        for number in range(boxes)
    ]
    side = {"height": IMAGE_SIZE_PX, "width": IMAGE_SIZE_PX}
    return {
        "images": [{"id": number, **side} for number in range(images)],
        "annotations": annotations,
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)],
    }


def random_detections(truth: dict[str, Any], count: int) -> DetectedBoxes:
    """The truth again and again, each time a little beside it, a fifth of it in another class."""
    rng = np.random.default_rng(1)
    annotations = truth["annotations"]
    chosen = np.arange(count) % len(annotations)
    boxes = np.array([entry["bbox"] for entry in annotations])[chosen]  # (D, 4) xywh
    boxes[:, 2:] += boxes[:, :2]
    boxes += rng.normal(0, 0.1, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    categories = np.array([entry["category_id"] for entry in annotations])[chosen]
    swapped = rng.random(count) < 0.2
    categories[swapped] = rng.permutation(categories[swapped])
    images = np.array([entry["image_id"] for entry in annotations])[chosen]
    return DetectedBoxes(images, categories, boxes, rng.random(count))
