"""Anchors of a config beside those that k-means finds on its training boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from yolo.apps.report.plots import Curve, draw_curves
from yolo.config import Config
from yolo.config.schema.model import YOLOv1HeadConfig
from yolo.data.formats.detection import DetectionDataset
from yolo.detection.anchors import RECALL_IOU, count_distinct, fit_anchors, measure_fit
from yolo.factory.anchors import box_sizes_px, fit_by_level, fit_to_head
from yolo.factory.detector import anchors_px


class AnchorComparison:
    """Boxes of a training set, the configured anchors and fitted ones.

    Args:
        config: of a head with anchors, or ``anchors: auto``.
        train: its training set.

    Raises:
        UserError: there are fewer different boxes than anchors.
    """

    def __init__(self, config: Config, train: DetectionDataset) -> None:
        head = config.model.head
        assert not isinstance(head, YOLOv1HeadConfig), "YOLOv1 has no anchors"
        self._head, self._seed = head.type, config.seed
        self._sizes_wh_px = box_sizes_px(train.annotations, config.data.image_size)
        self._boxes = f"{len(self._sizes_wh_px):,} boxes at {config.data.image_size} px"
        self._current = None if head.anchors == "auto" else anchors_px(config)
        self._fitted = fit_to_head(config, self._sizes_wh_px)

    def lines(self) -> Iterator[str]:
        """Average IoU and recall of both, and the boxes of each anchor by stride."""
        yield f"data.train: {self._boxes}"
        if self._current is not None:
            yield from self._describe("current anchors", self._current)
        yield from self._describe("fitted anchors", self._fitted)

    def yaml(self) -> str:
        """The fitted anchors, to paste."""
        text = ", ".join(f"[{width:g}, {height:g}]" for width, height in self._fitted)
        return f"model:\n  head:\n    type: {self._head}\n    anchors:\n      [{text}]"

    def draw_elbow(self, counts: Iterable[int]) -> np.ndarray:
        """Average IoU and recall of fitted anchors over their number; crosses for the current.

        Args:
            counts: the numbers of anchors; those above the number of different boxes are left out.

        Returns:
            uint8 (H, W, 3) RGB.
        """
        sizes, most = self._sizes_wh_px, count_distinct(self._sizes_wh_px)
        places = [count for count in counts if count <= most]
        curves = self._curves(
            [fit_anchors(sizes, count, seed=self._seed) for count in places], "fitted", "o"
        )
        if self._current is not None:
            curves += self._curves([np.array(self._current)], "current", "x")
        title = f"Anchors fitted to {self._boxes}"
        return draw_curves(curves, title=title, x="number of anchors", y="share")

    def _curves(self, sets: list[np.ndarray], whose: str, marker: str) -> list[Curve]:
        """Both figures of some sets of anchors over their number."""
        x = np.array([len(anchors) for anchors in sets])
        fits = [measure_fit(self._sizes_wh_px, anchors) for anchors in sets]
        figures = {
            "average IoU": [fit.average_iou for fit in fits],
            f"recall at IoU {RECALL_IOU}": [fit.recall for fit in fits],
        }
        return [
            Curve(name=f"{name}, {whose} anchors", x=x, y=np.array(y), marker=marker)
            for name, y in figures.items()
        ]

    def _describe(self, title: str, anchors: list[list[float]]) -> Iterator[str]:
        fit, levels = fit_by_level(self._head, anchors, self._sizes_wh_px)
        figures = f"average IoU {fit.average_iou:.3f}, recall at IoU {RECALL_IOU} {fit.recall:.1%}"
        yield f"\n{title}: {figures}"
        for level in levels:
            yield f"  stride {level.stride_px}: {sum(level.counts):,} boxes"
            for (width, height), count in zip(level.anchors_px, level.counts, strict=True):
                yield f"    {f'[{width:g}, {height:g}]':18} {count:9,}"
