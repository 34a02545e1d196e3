"""The sixth stage: every image decodes, and some of them are shown with their boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from yolo.apps.preflight.bad_images import (
    BadImage,
    fault_of_images,
    table_of_images,
    warnings_of_images,
)
from yolo.apps.preflight.flight import Flight, Outcome, Split, within
from yolo.apps.report.drawing import contact_sheet, draw_truth
from yolo.apps.report.page import Html, picture
from yolo.data.formats.detection import DetectionDataset
from yolo.data.images import JPEG_END, JPEG_START
from yolo.errors import UserError

DECODE_SECONDS = 15.0
"""For each data set; of a larger one a sample is decoded, the same each time."""

THREADS = 2
"""OpenCV lets others run while it decodes."""

AT_ONCE = 16
SHOWN = 12
SHOWN_PX = 400


def check_decoding(flight: Flight) -> Outcome:
    """Decode all images, or as many as the time allows."""
    broken: list[BadImage] = []
    decoded: dict[Split, int] = {}
    for split, dataset in flight.datasets.items():
        order = flight.shuffled(len(dataset)).tolist()
        found = list(_decode_all(split, dataset, order))
        decoded[split] = len(found)
        broken += [one for one in found if one is not None]
    told = ", ".join(
        f"{count:,} of {len(flight.datasets[split]):,} of data.{split}"
        for split, count in decoded.items()
    )
    return Outcome(
        summary=f"{told} decoded",
        fault=fault_of_images(flight.config, broken, decoded),
        warnings=warnings_of_images(broken),
        figures={
            "decoded": decoded,
            "broken": [one.plain() for one in broken],
        },
        blocks=[*table_of_images(broken), *_pictures(flight, broken)],
    )


def _decode_all(
    split: Split, dataset: DetectionDataset, order: Sequence[int]
) -> Iterator[BadImage | None]:
    """One item for each image that was looked at: None where it is sound."""

    def look(index: int) -> BadImage | None:
        path = dataset.image_path(index)
        try:
            dataset.load(index)
            _check_end(path)
        except UserError as error:
            return BadImage(split, path, str(error))
        return None

    parts = [order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        for part in within(DECODE_SECONDS, parts):
            yield from pool.map(look, part)


def _check_end(path: Path) -> None:
    """Whether a JPEG that does not end as one should lacks pixels: OpenCV paints them grey.

    Raises:
        UserError: it is cut off.
    """
    with path.open("rb") as file:
        if file.read(2) != JPEG_START:
            return
        file.seek(-2, 2)
        if file.read() == JPEG_END:
            return
    try:
        with Image.open(path) as image:
            image.load()  # Pillow refuses what is cut off, and only that
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"the image {path} is damaged: {error}; fetch it again.") from None


def _pictures(flight: Flight, broken: Sequence[BadImage]) -> list[Html]:
    """Some training images with their truth: what no figure tells is seen at once."""
    dataset = flight.datasets["train"]
    bad = {one.path for one in broken}
    sound = (
        index
        for index in flight.shuffled(len(dataset)).tolist()
        if dataset.image_path(index) not in bad and len(dataset.annotations.truth(index)[0])
    )
    chosen = [index for _, index in zip(range(SHOWN), sound, strict=False)]
    images = [_drawn(dataset, index) for index in chosen]
    if not images:
        return []
    caption = "training images with their boxes: do they sit on the objects?"
    return [picture(contact_sheet(images, columns=4), caption=caption, longest_px=1600)]


def _drawn(dataset: DetectionDataset, index: int) -> np.ndarray:
    """An image, shrunk first so that the names on it can be read, with its truth."""
    sample = dataset.load(index)
    factor = SHOWN_PX / max(sample.image.shape[:2])
    size = [max(1, round(side * factor)) for side in sample.image.shape[1::-1]]
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
    boxes = sample.boxes_xyxy_px * factor
    return draw_truth(replace(sample, image=image, boxes_xyxy_px=boxes), dataset.class_names)
