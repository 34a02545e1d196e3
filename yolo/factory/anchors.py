"""Anchors from a config, or fitted to the boxes of a training set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from yolo.config import Config, Resolved
from yolo.config.schema.model import YOLOv1HeadConfig
from yolo.data.annotations import box_sizes_px
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.anchors import (
    RECALL_IOU,
    AnchorFit,
    Level,
    count_distinct,
    fit_anchors,
    fit_by_level,
    shape_iou,
)
from yolo.errors import UserError
from yolo.factory.detector import STRIDES_PX, anchors_px, count_anchors

KEY = "model.head.anchors"
ORIGIN = "fitted to data.train"
"""Where the numbers in place of ``anchors: auto`` came from, in a run's config.yaml."""


def settle_anchors(resolved: Resolved, train: DetectionDataset) -> Resolved:
    """The config with numbers in place of ``anchors: auto``; any other stays as it is.

    The result depends on the config, its seed and the boxes alone. A raw map that would get no box
    at all of a data set that has 100 (of so many a head that deserves 3 % gets none one time in 20)
    and was not cut down by ``data.limit`` is a UserError, unless the boxes have fewer sizes than
    the head has anchors, or other assignments than Darknet's let also anchors learn that are not
    the best.
    """
    config = resolved.config
    if not isinstance(config, Config) or isinstance(config.model.head, YOLOv1HeadConfig):
        return resolved
    sizes_wh_px = box_sizes_px(train.annotations, config.data.image_size)
    if config.model.head.anchors == "auto":
        resolved = resolved.with_values({KEY: fit_to_head(config, sizes_wh_px)}, ORIGIN)
        assert isinstance(resolved.config, Config)
        config = resolved.config
    is_enough = count_distinct(sizes_wh_px) >= count_anchors(config.model.head)
    is_enough &= getattr(config.loss, "assignment", "") in ("best_anchor", "darknet", "global")
    if config.data.limit is None and is_enough and len(sizes_wh_px) >= 100:
        _, levels = levels_of(config, sizes_wh_px)
        if empty := [_describe_empty(level) for level in levels if not sum(level.counts)]:
            raise UserError(
                f"{KEY}: at {config.data.image_size} px {'; '.join(empty)}; fit the anchors with "
                f"scripts/fit_anchors.py, or set {KEY}: auto"
            )
    return resolved


def fit_to_head(config: Config, sizes_wh_px: np.ndarray) -> list[list[float]]:
    """As many anchors as the head has, fitted to boxes (N, 2) in pixels of the network's input.

    Where the boxes have fewer sizes than that, these are anchors, each in place of the one of the
    head's published anchors that it is most like; the others of those stay.
    """
    head = config.model.head
    assert not isinstance(head, YOLOv1HeadConfig), "YOLOv1 has no anchors"
    count, distinct = count_anchors(head), count_distinct(sizes_wh_px)
    if distinct == 0:
        raise UserError(f"{KEY}: data.train has no box to fit anchors to; write them as numbers")
    if distinct >= count:
        anchors: list[list[float]] = fit_anchors(sizes_wh_px, count, seed=config.seed).tolist()
        return anchors
    published = np.array(type(head).model_fields["anchors"].default)
    own = fit_anchors(sizes_wh_px, distinct, seed=config.seed)
    likeness = shape_iou(own, published)  # (D, K)
    for _ in own:
        size, place = np.unravel_index(likeness.argmax(), likeness.shape)
        published[place] = own[size]
        likeness[size], likeness[:, place] = -1, -1
    return sorted(published.tolist(), key=lambda anchor: (anchor[0] * anchor[1], anchor[0]))


def levels_of(config: Config, sizes_wh_px: np.ndarray) -> tuple[AnchorFit, list[Level]]:
    """How the configured anchors, which are numbers, fit boxes (N, 2): see ``fit_by_level``."""
    return fit_by_level(STRIDES_PX[config.model.head.type], anchors_px(config), sizes_wh_px)


def describe_anchors(config: Config, train: DetectionDataset) -> Iterator[str]:
    """How the anchors fit the training boxes, for the run's introduction."""
    if isinstance(config.model.head, YOLOv1HeadConfig):
        return
    sizes_wh_px = box_sizes_px(train.annotations, config.data.image_size)
    if len(sizes_wh_px) == 0:
        yield f"{KEY}: data.train has no box to compare them with"
        return
    fit, levels = levels_of(config, sizes_wh_px)
    shares = ", ".join(f"{sum(level.counts):,} at stride {level.stride_px}" for level in levels)
    yield (
        f"{KEY}: average IoU {fit.average_iou:.3f} with data.train, "
        f"{fit.recall:.1%} of the boxes above {RECALL_IOU}; {shares}"
    )
    yield from (f"  {_describe_empty(level)}" for level in levels if not sum(level.counts))


def _describe_empty(level: Level) -> str:
    anchors = ", ".join(f"[{width:g}, {height:g}]" for width, height in level.anchors_px)
    return (
        f"no box of data.train belongs to stride {level.stride_px}, for another anchor fits each "
        f"better than {anchors}"
    )
