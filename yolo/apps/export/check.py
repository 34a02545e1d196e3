"""The check of an exported file: whether it finds what PyTorch finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from yolo.data.formats.shapes_drawing import draw_scene
from yolo.data.images import IMAGE_SUFFIXES
from yolo.data.images import decode as decode_image
from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel, ExportMetadata
from yolo.letterbox import FILL_COLOUR_RGB, Letterbox
from yolo.records import Detections

BATCH = 4
MOST_IMAGES = 16  # of a folder; the first by name


@dataclass(frozen=True)
class Bounds:
    """How far an export may be from PyTorch."""

    box_px: float  # any coordinate of a box, in pixels; or
    box_share: float  # of the longer side of the box, where that is more
    score: float
    overlap: float  # IoU of two boxes, where the suppression depends on it


BOUNDS: dict[Literal["fp32", "fp16"], Bounds] = {
    "fp32": Bounds(box_px=0.05, box_share=1e-4, score=1e-4, overlap=1e-3),
    "fp16": Bounds(box_px=1.0, box_share=0.02, score=0.02, overlap=0.05),
}
"""float32 leaves room for sums in another order only. A number in float16 has 11 bits; in trained
networks of three generations that cost up to 0.5 px and 0.004, and a wild one may cost more."""


class Disagreement(Exception):
    """What an export finds is not what PyTorch finds; the text names the first difference."""


def check_batches(folder: Path | None, sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Batches uint8 (B, 3, H, W) of 1 and of up to 4 images at each size; the first is empty.

    Images of the folder, or drawn ones, are letterboxed into a square that holds the size and cut.
    """
    if folder is None:
        images = [draw_scene(np.random.default_rng(seed)).image for seed in range(BATCH)]
    elif not folder.is_dir():
        raise UserError(f"--images {folder}: there is no such folder")
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise UserError(f"--images {folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
        images = [decode_image(path) for path in paths[:MOST_IMAGES]]
    batches = []
    for height, width in sizes_hw:
        batches.append([np.full((height, width, 3), FILL_COLOUR_RGB, np.uint8)])
        fitted = [
            Letterbox.fit(image.shape[:2], max(height, width)).image(image)[:height, :width]
            for image in images
        ]
        batches += [fitted[i : i + BATCH] for i in range(0, len(fitted), BATCH)]
    # (H, W, 3) each -> (B, 3, H, W)
    return [torch.from_numpy(np.stack(b)).permute(0, 3, 1, 2).contiguous() for b in batches]


@torch.inference_mode()
def check_export(
    batches: Sequence[Tensor],
    reference: nn.Module,
    metadata: ExportMetadata,
    before: ExportedModel,
    after: ExportedModel,
) -> str:
    """Compare an export with PyTorch on batches of images, uint8 (B, 3, H, W) each.

    ``before`` the suppression, every box (B, N, 4) and every score (B, N, K) has to be within the
    precision's ``BOUNDS`` of the ``reference``, PyTorch's. What is found ``after`` it has to be
    what PyTorch makes of the export's own boxes and scores, see ``check_suppression``.

    Returns:
        The largest differences, and on how many images, as a sentence's end.
    """
    box_px, score, detections = 0.0, 0.0, 0
    postprocess, bounds = metadata.postprocess(), BOUNDS[metadata.precision]
    for images in batches:
        count, _, height, width = images.shape
        try:
            boxes, scores = before(images)
            expected_boxes, expected_scores = reference(images)
            shapes = [tuple(t.shape) for t in (expected_boxes, expected_scores, boxes, scores)]
            if shapes[:2] != shapes[2:]:
                raise Disagreement(f"boxes and scores are {shapes[2:]}, not {shapes[:2]}")
            box_px = max(box_px, _compare_boxes(expected_boxes, boxes, bounds))
            score = max(score, _compare_scores(expected_scores, scores, bounds))
            for i, found in enumerate(after.detect(images)):
                if postprocess.suppression == "greedy":  # a soft one is PyTorch's own
                    check_suppression(i, boxes[i], scores[i], found, postprocess, bounds)
                detections += len(found)
        except Disagreement as error:
            raise Disagreement(f"on {count} image(s) of {width} x {height} px, {error}") from error
    count = sum(map(len, batches))
    return (
        f"on {count} images boxes differ from PyTorch's by at most {box_px:.2g} px and scores by "
        f"{score:.2g}; {detections} detections agree"
    )


def _compare_boxes(expected: Tensor, found: Tensor, bounds: Bounds) -> float:
    difference = _differences(expected, found, "boxes").amax(dim=-1)  # (B, N)
    excess = difference / _box_tolerance(expected, bounds)
    worst = int(excess.argmax())
    if excess.flatten()[worst] > 1:
        raise Disagreement(
            f"a box is {difference.flatten()[worst]:.3g} px off: "
            f"{_text(found.flatten(0, 1)[worst])} instead of "
            f"{_text(expected.flatten(0, 1)[worst])}; allowed are {bounds.box_px:g} px, or "
            f"{bounds.box_share:g} of its size"
        )
    return float(difference.max())


def _compare_scores(expected: Tensor, found: Tensor, bounds: Bounds) -> float:
    difference = _differences(expected, found, "scores").flatten()
    worst = int(difference.argmax())
    if difference[worst] > bounds.score:
        raise Disagreement(
            f"a score is {found.flatten()[worst]:.6f} instead of "
            f"{expected.flatten()[worst]:.6f}; allowed is a difference of {bounds.score:g}"
        )
    return float(difference[worst])


def _differences(expected: Tensor, found: Tensor, what: str) -> Tensor:
    if not expected.isfinite().all():
        raise Disagreement(f"PyTorch's own {what} are not finite numbers: the weights are damaged")
    if not found.isfinite().all():
        raise Disagreement(f"{what} are not finite numbers, and PyTorch's are")
    return (expected - found).abs()


def _box_tolerance(boxes: Tensor, bounds: Bounds) -> Tensor:
    """Pixels that a coordinate may be off. (..., 4) -> (...)."""
    side = (boxes[..., 2:] - boxes[..., :2]).amax(dim=-1)
    return (bounds.box_share * side).clamp(min=bounds.box_px)


def check_suppression(
    image: int,
    boxes: Tensor,
    scores: Tensor,
    found: Detections,
    postprocess: Postprocess,
    bounds: Bounds,
) -> None:
    """Check that detections are what ``postprocess`` makes of boxes (N, 4) and scores (N, K).

    Equal scores, a score at the threshold or an overlap at it may be decided either way by a last
    digit, and each decision brings others with it. So the detections are not compared with others,
    but have to be a suppression of the candidates that ``postprocess`` chooses: none overlaps a
    better one of its class, and each candidate that is left out overlaps one that is there. A
    ``Disagreement`` names the image by its index, and one that is too much or missing.
    """
    most = postprocess.max_candidates
    choose = replace(postprocess, iou=1.0, max_detections=most)  # nothing overlaps by more than 1
    (candidates,) = choose(boxes[None], scores[None])
    if (found.scores.diff() > 0).any():
        raise Disagreement(f"the detections of image {image} are not sorted by score")

    floor = float(candidates.scores[-1]) if len(candidates) == most else postprocess.conf
    same = _same(candidates, found, bounds)  # (C, D)
    extra = ~same.any(dim=0) & ((found.scores - floor).abs() > bounds.score)
    extra |= _overlaps(found, found, postprocess.iou + bounds.overlap).triu(1).any(dim=0)
    extra[postprocess.max_detections :] = True
    if extra.any():
        raise Disagreement(
            f"image {image} has a detection of {_describe(found, extra)} that PyTorch has not"
        )

    better = candidates.scores[:, None] <= found.scores + bounds.score  # (C, D)
    beaten = better & _overlaps(candidates, found, postprocess.iou - bounds.overlap)
    lowest = float(found.scores[-1]) if len(found) == postprocess.max_detections else floor
    missing = ~(same | beaten).any(dim=1) & (candidates.scores > lowest + bounds.score)
    if missing.any():
        raise Disagreement(f"image {image} lacks the detection of {_describe(candidates, missing)}")


def _same(candidates: Detections, found: Detections, bounds: Bounds) -> Tensor:
    """Which candidates (C) may be which detections (D): bool (C, D)."""
    boxes = candidates.boxes_xyxy_px
    apart = (boxes[:, None] - found.boxes_xyxy_px).abs().amax(dim=2)  # (C, D)
    same = apart <= _box_tolerance(boxes, bounds)[:, None]
    same &= (candidates.scores[:, None] - found.scores).abs() <= bounds.score
    return same & (candidates.labels[:, None] == found.labels)


def _overlaps(some: Detections, others: Detections, iou: float) -> Tensor:
    """Which of two lists of detections overlap within their class by more: bool (C, D)."""
    overlap = box_iou(some.boxes_xyxy_px.double(), others.boxes_xyxy_px.double())
    return (overlap > iou) & (some.labels[:, None] == others.labels)


def _describe(detections: Detections, which: Tensor) -> str:
    one = int(which.nonzero()[0])
    return (
        f"class {int(detections.labels[one])} with the score {detections.scores[one]:.4f} at "
        f"{_text(detections.boxes_xyxy_px[one])}"
    )


def _text(box: Tensor) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in box.tolist()) + ")"
