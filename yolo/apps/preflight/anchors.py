"""How anchors fit the training boxes: a stage, and a comparison with anchors that k-means finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from markupsafe import Markup

from yolo.apps.preflight.checks import Outcome, Preflight
from yolo.apps.report.page import density_chart, table
from yolo.apps.report.plots import Line, draw_curves
from yolo.config import Config
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
    measure_fit,
)
from yolo.factory.anchors import KEY, fit_to_head, levels_of, settle_anchors
from yolo.factory.detector import STRIDES_PX, anchors_px

WORST_IOU = 0.35  # an average below it is no fit: five fitted anchors reach 0.6, a single one 0.4
WORTHWHILE = 0.1  # so much more average IoU of fitted anchors is worth a word


def check_anchors(preflight: Preflight) -> Outcome:
    """Fit ``anchors: auto``, then compare; a bad fit is named before an empty raw map."""
    if isinstance(preflight.config.model.head, YOLOv1HeadConfig):
        return Outcome(summary="a YOLOv1 has none")
    train, size_px = preflight.datasets["train"], preflight.config.data.image_size
    sizes_wh_px = box_sizes_px(train.annotations, size_px)
    if preflight.config.model.head.anchors == "auto":
        preflight.resolved = settle_anchors(preflight.resolved, train)
    fit, levels = levels_of(preflight.config, sizes_wh_px)
    fault = (
        f"{KEY}: their average IoU with the boxes of data.train is {fit.average_iou:.2f} at "
        f"{size_px} px, below {WORST_IOU}: they are of another scale; fit them "
        f"with scripts/fit_anchors.py, or set {KEY}: auto."
    )
    if is_fit := fit.average_iou >= WORST_IOU:
        settle_anchors(preflight.resolved, train)  # refuses a raw map without boxes
    shares = ", ".join(f"{sum(level.counts):,} at stride {level.stride_px}" for level in levels)
    return Outcome(
        summary=f"average IoU {fit.average_iou:.3f}, {fit.recall:.0%} of the boxes above "
        f"{RECALL_IOU}; {shares}",
        fault=None if is_fit else fault,
        warnings=list(_warnings(preflight.config, sizes_wh_px, fit, levels)),
        figures={
            "average_iou": fit.average_iou,
            "recall": fit.recall,
            "levels": [
                {"stride_px": one.stride_px, "anchors_px": one.anchors_px, "boxes": one.counts}
                for one in levels
            ],
        },
        blocks=_blocks(levels, sizes_wh_px, size_px),
    )


def _warnings(
    config: Config, sizes_wh_px: np.ndarray, fit: AnchorFit, levels: list[Level]
) -> Iterator[str]:
    for level in levels:
        if not sum(level.counts):
            yield f"no training box belongs to the anchors of stride {level.stride_px}"
    best = measure_fit(sizes_wh_px, np.array(fit_to_head(config, sizes_wh_px))).average_iou
    if best - fit.average_iou >= WORTHWHILE:
        yield (
            f"{KEY}: their average IoU is {fit.average_iou:.2f}, and fitted ones have {best:.2f}: "
            f"set {KEY}: auto, or take those that scripts/fit_anchors.py prints"
        )


def _blocks(levels: list[Level], sizes_wh_px: np.ndarray, size_px: int) -> list[Markup]:
    rows = [
        [level.stride_px, f"{width:g} x {height:g}", count]
        for level in levels
        for (width, height), count in zip(level.anchors_px, level.counts, strict=True)
    ]
    anchors = np.array([anchor for level in levels for anchor in level.anchors_px])
    title = f"Training boxes and anchors at {size_px} px"
    return [
        table(["stride", "anchor, px", "training boxes"], rows),
        density_chart(title, sizes_wh_px, anchors),
    ]


class AnchorComparison:
    """Boxes of a training set, the configured anchors, if they are not auto, and fitted ones."""

    def __init__(self, config: Config, train: DetectionDataset) -> None:
        head = config.model.head
        assert not isinstance(head, YOLOv1HeadConfig), "YOLOv1 has no anchors"
        self._head, self._seed = head.type, config.seed
        self._sizes_wh_px = box_sizes_px(train.annotations, config.data.image_size)
        self._boxes = f"{len(self._sizes_wh_px):,} boxes at {config.data.image_size} px"
        self._anchors = {} if head.anchors == "auto" else {"current": anchors_px(config)}
        self._anchors["fitted"] = fit_to_head(config, self._sizes_wh_px)

    def lines(self) -> Iterator[str]:
        """Average IoU and recall of both, and the boxes of each anchor by stride."""
        yield f"data.train: {self._boxes}"
        for whose, anchors in self._anchors.items():
            fit, levels = fit_by_level(STRIDES_PX[self._head], anchors, self._sizes_wh_px)
            yield (
                f"\n{whose} anchors: average IoU {fit.average_iou:.3f}, "
                f"recall at IoU {RECALL_IOU} {fit.recall:.1%}"
            )
            for level in levels:
                yield f"  stride {level.stride_px}: {sum(level.counts):,} boxes"
                for (width, height), count in zip(level.anchors_px, level.counts, strict=True):
                    yield f"    {f'[{width:g}, {height:g}]':18} {count:9,}"

    def yaml(self) -> str:
        """The fitted anchors, to paste."""
        text = ", ".join(f"[{width:g}, {height:g}]" for width, height in self._anchors["fitted"])
        return f"model:\n  head:\n    type: {self._head}\n    anchors:\n      [{text}]"

    def draw_elbow(self, counts: Iterable[int]) -> np.ndarray:
        """Average IoU and recall over the number of anchors, at most one for each size of box."""
        sizes, most = self._sizes_wh_px, count_distinct(self._sizes_wh_px)
        fitted = [fit_anchors(sizes, n, seed=self._seed) for n in counts if n <= most]
        current = [np.array(self._anchors["current"])] if "current" in self._anchors else []
        figures = {"average IoU": "average_iou", f"recall at IoU {RECALL_IOU}": "recall"}
        lines = []
        for whose, marker, sets in (("fitted", "o", fitted), ("current", "x", current)):
            x, fits = np.array(list(map(len, sets))), [measure_fit(sizes, one) for one in sets]
            for name, field in figures.items() if fits else ():
                y = np.array([getattr(fit, field) for fit in fits])
                lines.append(Line(name=f"{name}, {whose} anchors", x=x, y=y, marker=marker))
        title = f"Anchors fitted to {self._boxes}"
        return draw_curves(lines, title=title, x="number of anchors", y="share")
