"""The check that refuses: whether an exported file finds what PyTorch finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from yolo.apps.export.sure import Candidates, sure_and_possible
from yolo.detection.postprocess import Postprocess
from yolo.errors import UserError
from yolo.evaluate.exported_graph import ExportPrecision
from yolo.records import Detections

Decode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images -> boxes and scores before the suppression."""

Detect = Callable[[Tensor], list[Detections]]


@dataclass(frozen=True)
class Bounds:
    """How far an export may be from PyTorch.

    Attributes:
        box_px: any coordinate of a box, in pixels; or
        box_share: of the longer side of the box, where that is more.
        score: any score.
    """

    box_px: float
    box_share: float
    score: float


BOUNDS: dict[ExportPrecision, Bounds] = {
    "fp32": Bounds(box_px=0.05, box_share=1e-4, score=1e-4),
    "fp16": Bounds(box_px=1.0, box_share=0.02, score=0.02),
}
"""float32 leaves room for sums in another order only. A number in float16 has 11 bits; in trained
networks of three generations that cost up to 0.5 px and 0.004, and a wild one may cost more."""

COMPARED_CANDIDATES = 1000
"""Of an image, the best: what lies below has no part in what becomes of them."""


@dataclass(frozen=True)
class Agreement:
    """What the check found.

    Attributes:
        images: how many were compared.
        box_px, score: the largest differences, before the suppression.
        detections: how many were compared behind it.
    """

    images: int
    box_px: float
    score: float
    detections: int

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            images=self.images + other.images,
            box_px=max(self.box_px, other.box_px),
            score=max(self.score, other.score),
            detections=self.detections + other.detections,
        )


class Reference(nn.Module):
    """The detector as it was trained: not fused, float32, on the CPU."""

    def __init__(self, detector: nn.Module, coder: nn.Module) -> None:
        super().__init__()
        self.detector, self.coder = detector, coder
        self.eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, 3, H, W) -> boxes (B, N, 4) and scores (B, N, K)."""
        return self.coder(self.detector(images))


def check_export(
    batches: Sequence[Tensor],
    *,
    reference: Decode,
    decode: Decode,
    detect: Detect,
    postprocess: Postprocess,
    bounds: Bounds,
) -> Agreement:
    """Compare an export with PyTorch on batches of images.

    Before the suppression every box and every score has to be within ``bounds``. Behind it, the
    detections have to be the same: a difference is allowed only to the candidates whose fate hangs
    on the differences that were seen, such as a score that close to ``conf``.

    Args:
        batches: uint8 (B, 3, H, W) each.
        reference: PyTorch's.
        decode, detect: the export's, before and behind the suppression.
        postprocess: the suppression of both.
        bounds: what may differ.

    Raises:
        UserError: they differ by more.
    """
    total = Agreement(images=0, box_px=0.0, score=0.0, detections=0)
    for images in batches:
        try:
            total += _check_batch(images, reference, decode, detect, postprocess, bounds)
        except UserError as error:
            count, _, height, width = images.shape
            raise UserError(f"on {count} image(s) of {width} x {height} px, {error}") from error
    return total


def _check_batch(
    images: Tensor,
    reference: Decode,
    decode: Decode,
    detect: Detect,
    postprocess: Postprocess,
    bounds: Bounds,
) -> Agreement:
    expected, found = reference(images), decode(images)
    shapes = [tuple(t.shape) for t in (*expected, *found)]
    if shapes[:2] != shapes[2:]:
        raise UserError(f"boxes and scores are {shapes[2:]}, not {shapes[:2]}")
    box_px = _compare_boxes(expected[0], found[0], bounds)
    score = _compare_scores(expected[1], found[1], bounds)
    detections = 0
    for i, found_here in enumerate(detect(images)):
        candidates = Candidates(
            boxes=expected[0][i],
            scores=expected[1][i],
            other_boxes=found[0][i],
            other_scores=found[1][i],
        )
        lowest = _score_of_rank(COMPARED_CANDIDATES, expected[1][i])
        if lowest > postprocess.conf:
            found_here = found_here.above(lowest)
        limited = replace(postprocess, conf=max(postprocess.conf, lowest))
        _compare_detections(i, candidates, found_here, limited, bounds)
        detections += len(found_here)
    return Agreement(len(images), box_px, score, detections)


def _score_of_rank(rank: int, scores: Tensor) -> float:
    """The score of a place among all of an image, (N, K)."""
    flat = scores.flatten()
    return float(flat.topk(min(rank, len(flat))).values[-1]) if len(flat) > rank else 0.0


def _compare_boxes(expected: Tensor, found: Tensor, bounds: Bounds) -> float:
    difference = _differences(expected, found, "boxes").amax(dim=-1)  # (B, N)
    excess = difference / _box_tolerance(expected, bounds)
    if len(excess.flatten()) and excess.max() > 1:
        worst = int(excess.argmax())
        raise UserError(
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
        raise UserError(
            f"a score is {found.flatten()[worst]:.6f} instead of "
            f"{expected.flatten()[worst]:.6f}; allowed is a difference of {bounds.score:g}"
        )
    return float(difference[worst])


def _differences(expected: Tensor, found: Tensor, what: str) -> Tensor:
    if not expected.isfinite().all():
        raise UserError(f"PyTorch's own {what} are not finite numbers: the weights are damaged")
    if not found.isfinite().all():
        raise UserError(f"{what} are not finite numbers, and PyTorch's are")
    return (expected - found).abs()


def _compare_detections(
    image: int,
    candidates: Candidates,
    found: Detections,
    postprocess: Postprocess,
    bounds: Bounds,
) -> None:
    """Nothing that is sure may be missing, and nothing may be there that is not possible."""
    fate = sure_and_possible(candidates, postprocess)
    if fate is None:
        return
    near = _near(fate.boxes, fate.scores, fate.labels, found, bounds)  # (C, D)
    missing = fate.sure & ~near.any(dim=1)
    if missing.any():
        one = int(missing.nonzero()[0])
        raise UserError(
            f"image {image} lacks the detection of class {int(fate.labels[one])} with the score "
            f"{fate.scores[one]:.4f} at {_text(fate.boxes[one])}"
        )
    foreign = ~(near & fate.possible[:, None]).any(dim=0)
    if foreign.any():
        one = int(foreign.nonzero()[0])
        raise UserError(
            f"image {image} has a detection of class {int(found.labels[one])} with the score "
            f"{found.scores[one]:.4f} at {_text(found.boxes_xyxy_px[one])} that PyTorch has not"
        )
    if (found.scores.diff() > 0).any():
        raise UserError(f"the detections of image {image} are not sorted by score")


def _near(
    boxes: Tensor, scores: Tensor, labels: Tensor, found: Detections, bounds: Bounds
) -> Tensor:
    """Which candidates (C) may be which detections (D): bool (C, D)."""
    apart = (boxes[:, None] - found.boxes_xyxy_px).abs().amax(dim=2)  # (C, D)
    same_box = apart <= _box_tolerance(boxes, bounds)[:, None]
    same_score = (scores[:, None] - found.scores).abs() <= bounds.score
    return same_box & same_score & (labels[:, None] == found.labels)


def _box_tolerance(boxes: Tensor, bounds: Bounds) -> Tensor:
    """Pixels that a coordinate may be off. (..., 4) -> (...)."""
    side = (boxes[..., 2:] - boxes[..., :2]).amax(dim=-1)
    return (bounds.box_share * side).clamp(min=bounds.box_px)


def _text(box: Tensor) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in box.tolist()) + ")"
