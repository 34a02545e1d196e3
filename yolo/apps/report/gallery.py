"""The worst false positives and misses, cut out of their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from markupsafe import Markup

from yolo.apps.report.drawing import Colour
from yolo.apps.report.page import picture
from yolo.boxes import pairwise_iou
from yolo.data.bad_images import BAD
from yolo.data.formats.detection import DetectionDataset
from yolo.evaluate.evaluators import Found
from yolo.evaluate.metrics.detection_errors import BACKGROUND_IOU, MATCH_IOU, DetectionErrors
from yolo.evaluate.metrics.metric import WRONG
from yolo.records import Sample

MOST_PICTURES = 24  # of false positives, and of misses
MOST_PER_IMAGE = 3
SIDE_PX = 300  # of a picture
LEAST_WINDOW_PX = 64  # so that a small box shows with what is around it
CONTEXT = 2.0  # the window's side as a multiple of the box's longer one
TRUTH, FALSE, MISSED = (60, 200, 90), (235, 60, 50), (255, 150, 20)  # RGB


class Gallery:
    """Cuts pictures out of a data set that was scored, by what was found and the errors in it."""

    def __init__(self, dataset: DetectionDataset, found: Found, errors: DetectionErrors) -> None:
        self._dataset, self._found, self._errors = dataset, found, errors
        self._names = dataset.class_names
        ids = dataset.annotations.image_ids.tolist()
        self._index_of = dict(zip(ids, range(len(ids)), strict=True))

    def false_positives(self) -> list[Markup]:
        """The wrong boxes of the highest confidence."""
        wrong = np.flatnonzero(self._errors.verdicts == WRONG)
        order = wrong[np.argsort(-self._found.scores[wrong], kind="stable")]
        return [self._false_positive(row) for row in _spread(order, self._found.image_ids)]

    def misses(self) -> list[Markup]:
        """Truths that no box of the working confidence has found.

        Those without any box first, of them the largest first; then those of the least confidence.
        """
        truth, by = self._errors.truth, self._errors.found_by
        scores = np.append(self._found.scores, np.float32(0))[by]  # -1 takes the last: none
        missed = np.flatnonzero(~truth.ignored & ((by < 0) | (scores < self._errors.conf)))
        order = missed[np.lexsort((-truth.areas_px2[missed], scores[missed], by[missed] >= 0))]
        return [self._miss(number) for number in _spread(order, truth.image_ids)]

    def _false_positive(self, row: int) -> Markup:
        found = self._found
        sample, file_name = self._load(int(found.image_ids[row]))
        truth_px, labels = sample.boxes_xyxy_px[~sample.ignored], sample.labels[~sample.ignored]
        box, label = found.boxes_xyxy_px[row], int(found.labels[row])
        why = self._why_wrong(_overlap(box, truth_px), label, labels)
        caption = f"{self._names[label]} {found.scores[row]:.2f}: {why} · {file_name}"
        return _cut(sample.image, box, FALSE, truth_px, TRUTH, caption)

    def _miss(self, number: int) -> Markup:
        truth = self._errors.truth
        sample, file_name = self._load(int(truth.image_ids[number]))
        why, shown = self._why_missed(number)
        caption = f"{self._names[truth.category_ids[number]]}: {why} · {file_name}"
        return _cut(sample.image, truth.boxes_xyxy_px[number], MISSED, shown, FALSE, caption)

    def _why_wrong(self, overlap: np.ndarray, label: int, truth_labels: np.ndarray) -> str:
        """TIDE's kinds in words, by the box's overlap (n,) with the truths of its image."""
        same = truth_labels == label
        best_same = overlap[same].max(initial=0.0)
        if best_same >= MATCH_IOU:
            return "a second box for the same object"
        if overlap[~same].max(initial=0.0) >= MATCH_IOU:
            other = int(truth_labels[np.where(same, -1.0, overlap).argmax()])
            return f"wrong class, is {self._names[other]}"
        if best_same >= BACKGROUND_IOU:
            return f"badly placed, IoU {_cut_off(best_same):.2f}"
        if overlap.max(initial=0.0) >= BACKGROUND_IOU:
            return "wrong class and badly placed"
        return "nothing there"

    def _why_missed(self, number: int) -> tuple[str, np.ndarray]:
        """In words, and the box (1, 4) or none that came nearest to a truth."""
        truth, found, by = self._errors.truth, self._found, int(self._errors.found_by[number])
        boxes = found.boxes_xyxy_px
        if by >= 0:
            return f"found with confidence {found.scores[by]:.3f} only", boxes[by : by + 1]
        mine = found.image_ids == truth.image_ids[number]
        rows = np.flatnonzero(mine & (found.scores >= self._errors.conf))
        overlap = _overlap(truth.boxes_xyxy_px[number], boxes[rows])
        iou = overlap.max(initial=0.0)
        if iou < BACKGROUND_IOU:
            return "not found", boxes[:0]
        row = int(rows[overlap.argmax()])
        label = found.labels[row]
        what = "nearest" if label == truth.category_ids[number] else "taken for"
        if what == "nearest" and iou >= MATCH_IOU:
            what = "shares its box with another object:"
        why = f"{what} {self._names[label]} {found.scores[row]:.2f}, IoU {_cut_off(iou):.2f}"
        return why, boxes[row : row + 1]

    def _load(self, image_id: int) -> tuple[Sample, str]:
        index = self._index_of[image_id]
        name = self._dataset.annotations.file_name(index)
        try:
            return self._dataset.load(index), name
        except BAD:  # the evaluation has named it and gone on
            return self._dataset.empty(index), f"{name} (cannot be read)"


def _spread(order: np.ndarray, image_ids: np.ndarray) -> Iterator[int]:
    """The first ``MOST_PICTURES`` of which no image has more than ``MOST_PER_IMAGE``."""
    of_image: Counter[int] = Counter()
    for number in order.tolist():
        image = int(image_ids[number])
        if of_image.total() == MOST_PICTURES:
            return
        if of_image[image] < MOST_PER_IMAGE:
            of_image[image] += 1
            yield number


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of a box (4,) with boxes (n, 4) -> (n,); 0 where one is not finite."""
    one, many = (torch.from_numpy(np.asarray(b, np.float64).reshape(-1, 4)) for b in (box, boxes))
    return np.nan_to_num(pairwise_iou(one, many)[0].numpy())


def _cut_off(overlap: float) -> float:
    """To two decimals, so that 0.499 does not look like a match."""
    return float(np.floor(overlap * 100 + 1e-6) / 100)


def _cut(
    image: np.ndarray,
    box: np.ndarray,
    colour: Colour,
    others: np.ndarray,
    others_colour: Colour,
    caption: str,
) -> Markup:
    """The box in its window of the image (H, W, 3), other boxes (n, 4) thinly."""
    size = np.array(image.shape[1::-1])  # width and height
    box = np.nan_to_num(np.asarray(box, np.float64), posinf=1e6, neginf=-1e6)
    box = box.clip(0, np.tile(size, 2))
    side = max(LEAST_WINDOW_PX, CONTEXT * (box[2:] - box[:2]).max())
    sides = np.minimum(np.round(side), size).astype(int)
    start = np.round((box[:2] + box[2:] - sides) / 2).clip(0, size - sides).astype(int)
    (left, top), (right, bottom) = start, start + sides
    factor = SIDE_PX / sides.max()
    scaled = [max(1, round(side * factor)) for side in sides.tolist()]
    smooth = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    canvas = cv2.resize(image[top:bottom, left:right], scaled, interpolation=smooth)
    looks = [*((other, others_colour, 1) for other in others), (box, colour, 2)]
    for shown, ink, thickness in looks:
        corners = np.nan_to_num((shown - np.tile(start, 2)) * factor)
        x1, y1, x2, y2 = corners.clip(-4 * SIDE_PX, 4 * SIDE_PX).round().astype(int).tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), ink, thickness, cv2.LINE_AA)
    return picture(canvas, caption=caption, longest_px=SIDE_PX, quality=82)
