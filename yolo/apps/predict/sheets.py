"""A data set to be looked at: images with their truth, and with what was found in them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from yolo.apps.predict.predictor import Predictor
from yolo.apps.report.drawing import contact_sheet, count_boxes, draw_tile
from yolo.data.formats.detection import DetectionDataset
from yolo.records import Sample


def draw_dataset(
    dataset: DetectionDataset, predictor: Predictor | None, *, side_px: int
) -> Iterator[np.ndarray]:
    """A tile for each image: its truth, and beside it what ``predictor`` finds, if there is one.

    Args:
        dataset: all that is drawn; its truth as it was read, at the images' full sizes.
        predictor: names what it finds by its own classes.
        side_px: longer side of a drawn image.

    Raises:
        UserError: an image cannot be read.
    """
    for index in range(len(dataset)):
        sample = dataset.load(index)
        truth = _draw_truth(sample, dataset, index, side_px)
        if predictor is None:
            yield truth
        else:
            yield contact_sheet([truth, _draw_found(sample, predictor, side_px)], columns=2)


def _draw_truth(sample: Sample, dataset: DetectionDataset, index: int, side_px: int) -> np.ndarray:
    height, width = sample.image.shape[:2]
    name = f"{dataset.annotations.file_name(index)} · id {sample.image_id}"
    return draw_tile(
        sample.image,
        sample.boxes_xyxy_px,
        sample.labels,
        dataset.class_names,
        side_px=side_px,
        title=f"{name} · {width}x{height} · {count_boxes(sample.ignored)}",
        ignored=sample.ignored,
    )


def _draw_found(sample: Sample, predictor: Predictor, side_px: int) -> np.ndarray:
    found = predictor(sample.image)[0].detections
    return draw_tile(
        sample.image,
        found.boxes_xyxy_px.numpy(),
        found.labels.numpy(),
        predictor.class_names,
        side_px=side_px,
        title=f"prediction · {len(found)} found",
        scores=found.scores.numpy(),
    )
