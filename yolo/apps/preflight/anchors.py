"""The fifth stage: how the anchors fit the training boxes, and whether each raw map gets any."""

from __future__ import annotations

import numpy as np

from yolo.apps.preflight.flight import Flight, Outcome
from yolo.apps.report.charts import density_chart
from yolo.apps.report.page import Cell, Html, table
from yolo.config import Config
from yolo.config.schema.model import YOLOv1HeadConfig
from yolo.detection.anchors import RECALL_IOU, AnchorFit
from yolo.factory.anchors import KEY, Level, box_sizes_px, levels_of, settle_anchors

WORST_IOU = 0.35
"""An average IoU below it is no fit: five fitted anchors reach 0.6, a single one for all 0.4."""


def check_anchors(flight: Flight) -> Outcome:
    """Fit ``anchors: auto``, then compare; a bad fit is told before an empty raw map."""
    head = flight.config.model.head
    if isinstance(head, YOLOv1HeadConfig):
        return Outcome(summary="a YOLOv1 has none")
    train = flight.datasets["train"]
    sizes_wh_px = box_sizes_px(train.annotations, flight.config.data.image_size)
    if head.anchors == "auto":
        flight.resolved = settle_anchors(flight.resolved, train)
    fit, levels = levels_of(flight.config, sizes_wh_px)
    if fit.average_iou >= WORST_IOU:
        settle_anchors(flight.resolved, train)  # refuses a raw map without boxes
    shares = ", ".join(f"{sum(level.counts):,} at stride {level.stride_px}" for level in levels)
    return Outcome(
        summary=f"average IoU {fit.average_iou:.3f}, {fit.recall:.0%} of the boxes above "
        f"{RECALL_IOU}; {shares}",
        fault=_fault(fit, flight.config),
        warnings=[
            f"no training box belongs to the anchors of stride {level.stride_px}"
            for level in levels
            if sum(level.counts) == 0
        ],
        figures={
            "average_iou": fit.average_iou,
            "recall": fit.recall,
            "levels": [
                {"stride_px": one.stride_px, "anchors_px": one.anchors_px, "boxes": one.counts}
                for one in levels
            ],
        },
        blocks=[_table(levels), _chart(flight, sizes_wh_px, levels)],
    )


def _fault(fit: AnchorFit, config: Config) -> str | None:
    if fit.average_iou >= WORST_IOU:
        return None
    return (
        f"{KEY}: their average IoU with the boxes of data.train is {fit.average_iou:.2f} at "
        f"{config.data.image_size} px, below {WORST_IOU}: they are of another scale; fit them "
        f"with scripts/fit_anchors.py, or set {KEY}: auto."
    )


def _table(levels: list[Level]) -> Html:
    rows: list[list[Cell]] = [
        [level.stride_px, f"{width:g} x {height:g}", count]
        for level in levels
        for (width, height), count in zip(level.anchors_px, level.counts, strict=True)
    ]
    return table(["stride", "anchor, px", "training boxes"], rows)


def _chart(flight: Flight, sizes_wh_px: np.ndarray, levels: list[Level]) -> Html:
    anchors = np.array([anchor for level in levels for anchor in level.anchors_px])
    return density_chart(
        f"Training boxes and anchors at {flight.config.data.image_size} px",
        sizes_wh_px,
        anchors,
        x="width, px",
        y="height, px",
        marks_name="anchors",
    )
