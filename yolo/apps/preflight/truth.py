"""The stage on the evaluation: the truth as predictions scores 1, and its upper bound.

The upper bound is what the truth reaches when it is encoded into the network's raw maps and decoded
again: boxes that share a cell and anchor have no place of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yolo.apps.preflight.checks import Outcome, Preflight
from yolo.boxes import cxcywh_to_xyxy
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.assign import assign_best_anchor, assign_first_in_cell
from yolo.detection.coders import AnchorCoder, GridCoder
from yolo.detection.postprocess import Postprocess
from yolo.evaluate.evaluators import DetectionEvaluator
from yolo.evaluate.metrics.metric import NO_TRUTH
from yolo.factory.detector import build_coder
from yolo.factory.evaluator import build_evaluator
from yolo.records import Batch, Targets
from yolo.train.distributed import Ranks
from yolo.train.interruption import Interruption
from yolo.train.precision import Precision

MOST_IMAGES = 160  # of a larger validation set so many are drawn, of those with an object first
PERFECT = 0.99  # below it the evaluation loses boxes; what only rounding costs is less
SPOILT = 0.9  # below it they are worth nothing; a box over the edge of a small set costs less
LOW_BOUND = 0.8
MOST_OF_A_CLASS = 100  # COCO's metric looks at no more of a class in an image, VOC's at all
CERTAIN = 20.0  # a logit whose sigmoid is 1 to eight digits
_CPU = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


def check_truth(preflight: Preflight) -> Outcome:
    """Let an oracle take the network's place, then one that answers in raw maps."""
    val, config = preflight.datasets["val"], preflight.config
    order = preflight.shuffled(val)
    # without an object among the images that are scored there would be no figure
    empty_last = order[np.argsort(count_objects(val)[order] == 0, kind="stable")]
    val = val.select(np.sort(empty_last[:MOST_IMAGES]))
    coder = build_coder(config)
    evaluator = build_evaluator(config, val, _CPU, coder=coder, precision=Precision("fp32"))
    batches, monitor = list(evaluator.network.batches), evaluator.monitor
    most = max(batch.targets.max_per_image for batch in batches)
    evaluator = replace(
        evaluator,
        network=replace(evaluator.network, batches=batches),
        postprocess=Postprocess(conf=0.5, iou=1.0, max_detections=most),
    )
    oracle = _Answers(batches, partial(_boxes_and_scores, classes=len(val.class_names)))
    perfect = _score(replace(evaluator, coder=nn.Identity()), oracle)
    bound = find_bound(evaluator, coder)
    shown = [name for name in dict.fromkeys((monitor, "AP")) if name in perfect]
    reached, at_most = (
        ", ".join(f"{name} {stats[name]:.4f}" for name in shown) for stats in (perfect, bound.stats)
    )
    return Outcome(
        summary=f"{reached} on {len(val):,} images; encoded in the network's maps and decoded "
        f"again {at_most}, the most that it can reach ({bound.placed:,} of {bound.truths:,} "
        "boxes have a place)",
        fault=_fault(perfect[monitor], monitor, val),
        warnings=list(_warnings(perfect[monitor], bound.stats[monitor], monitor)),
        figures={
            "images": len(val),
            "truth": perfect,
            "encoded": bound.stats,
            "truths": bound.truths,
            "placed": bound.placed,
        },
    )


class UpperBound(NamedTuple):
    """What encoding and decoding the truth gives."""

    stats: dict[str, float]
    truths: int  # boxes that are not ignored
    placed: int  # those of them that have a place in the maps


def find_bound(evaluator: DetectionEvaluator, coder: AnchorCoder | GridCoder) -> UpperBound:
    """Let the encoded truth take the network's place in an evaluation; ``coder`` is on the CPU."""
    truths = placed = 0

    def answer(targets: Targets, images: Tensor) -> list[Tensor]:
        nonlocal truths, placed
        size_px, classes = images.shape[-1], len(evaluator.class_names)
        raw, has_place = encode_truth(
            coder, targets, images=len(images), size_px=size_px, classes=classes
        )
        truths += int((~targets.ignored).sum())
        placed += int(has_place.sum())
        return [level.to(images.device) for level in raw]

    stats = _score(evaluator, _Answers(evaluator.network.batches, answer))
    return UpperBound(stats, truths, placed)


def count_objects(dataset: DetectionDataset) -> np.ndarray:
    """Boxes of each image that are to be found: int64 (I,)."""
    packed = dataset.annotations
    return np.bincount(packed.image_index()[~packed.ignored], minlength=len(dataset))


def _score(evaluator: DetectionEvaluator, model: nn.Module) -> dict[str, float]:
    found = evaluator.find(model, Interruption())
    assert found is not None
    return evaluator.score(found).stats


def _fault(figure: float, monitor: str, val: DetectionDataset) -> str | None:
    """Unless an image has more of a class than COCO's metric looks at."""
    if figure == NO_TRUTH:
        return (
            f"data.val has nothing to find that {monitor} could be measured on, so that no "
            "evaluation would have a figure; add objects, or choose another evaluation.monitor."
        )
    packed, classes = val.annotations, len(val.class_names)
    of_class = packed.image_index() * classes + packed.labels
    crowded = np.bincount(of_class, minlength=1).max() > MOST_OF_A_CLASS
    if figure >= SPOILT or crowded:
        return None
    return (
        f"data.val: its own boxes as predictions reach {monitor} {figure:.3f} and not 1, so that "
        "no network could; its annotations contradict themselves (boxes outside their images, or "
        "several of the same object?)."
    )


def _warnings(figure: float, bound: float, monitor: str) -> Iterator[str]:
    if figure < PERFECT:
        yield f"the validation set's own boxes reach {monitor} {figure:.3f} and not 1"
    if bound < LOW_BOUND:
        yield (
            f"no training can reach more than {monitor} {bound:.3f}: boxes share cells and "
            "anchors; a larger data.image_size or a head with more of them has more places"
        )


class _Answers(nn.Module):
    """Takes a network's place: answers the batches, which come in this order, by their truth."""

    def __init__(self, batches: Iterable[Batch], answer: Callable[[Targets, Tensor], Any]) -> None:
        super().__init__()
        self._targets, self._answer = (batch.targets for batch in batches), answer

    def forward(self, images: Tensor) -> Any:
        return self._answer(next(self._targets), images)


def _boxes_and_scores(targets: Targets, images: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
    """The truth itself: (B, N, 4) in pixels and (B, N, K)."""
    size_px = images.shape[-1]
    boxes = torch.zeros(len(images), targets.max_per_image, 4)
    scores = torch.zeros(len(images), targets.max_per_image, classes)
    for image in range(len(images)):
        mine = (targets.image_index == image) & ~targets.ignored
        count = int(mine.sum())
        boxes[image, :count] = cxcywh_to_xyxy(targets.boxes_cxcywh_norm[mine]) * size_px
        scores[image, torch.arange(count), targets.labels[mine]] = 1.0
    return boxes, scores


def encode_truth(
    coder: AnchorCoder | GridCoder, targets: Targets, *, images: int, size_px: int, classes: int
) -> tuple[list[Tensor], Tensor]:
    """Raw maps with each truth where its assignment wants it, and which have a place: bool (T,)."""
    if isinstance(coder, AnchorCoder):
        return _on_anchors(coder, targets, images, size_px, classes)
    raw = torch.zeros(images, coder.cells, coder.cells, coder.boxes * 5 + classes)
    places = assign_first_in_cell(targets, cells=coder.cells, images=images)
    encoded = coder.encode(targets.boxes_cxcywh_norm, row=places.row, column=places.column)
    boxes, logits = coder.split(raw)
    for t in torch.flatten(places.owns.nonzero()).tolist():
        at = (targets.image_index[t], places.row[t], places.column[t])
        boxes[at][0, :4], boxes[at][0, 4] = encoded[t], 1.0
        logits[at][targets.labels[t]] = 1.0
    return [raw], places.owns


def _on_anchors(
    coder: AnchorCoder, targets: Targets, images: int, size_px: int, classes: int
) -> tuple[list[Tensor], Tensor]:
    anchors = coder.anchors_px.shape[1]
    grids = [(size_px // stride, size_px // stride) for stride in coder.stride_px]
    raw = [torch.full((images, anchors, *grid, 5 + classes), -CERTAIN) for grid in grids]
    boxes_px = targets.boxes_cxcywh_norm * size_px
    places = assign_best_anchor(targets, boxes_px, coder, raw)
    at: dict[str, Tensor] = {n: getattr(places, n) for n in ("level", "anchor", "row", "column")}
    centres, sizes = coder.encode(boxes_px, **at)
    for t in torch.flatten(places.owns.nonzero()).tolist():
        index = targets.image_index[t], places.anchor[t], places.row[t], places.column[t]
        row = raw[places.level[t]][index]
        row[:2], row[2:4] = centres[t].logit(eps=1e-6), sizes[t]
        row[4] = row[5 + targets.labels[t]] = CERTAIN
    return raw, places.owns
