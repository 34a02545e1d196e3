"""Darknet's assignment of YOLOv2 and YOLOv3: a truth takes the one anchor that fits it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from yolo.boxes import pairwise_shape_iou
from yolo.records import Targets


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where each of T truths lives; row t of every tensor belongs to truth t.

    Attributes:
        level: int64 (T,), index of the raw map.
        anchor: int64 (T,), index of the anchor within its level.
        row, column: int64 (T,), the cell that holds the truth's centre.
        owns: bool (T,). False for ignored truths, where a later truth took the same anchor of the
            same cell, and where no anchor was left.
        owner: int64 (T,), the truth that finally holds this truth's anchor (itself if it owns);
            T for a truth that has no anchor: ignored, or left over.
        dropped: bool (T,), truths that own nothing though they are not ignored.
        owned: per level bool (B, A, H, W), the anchors that some truth owns.
    """

    level: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    owns: Tensor
    owner: Tensor
    dropped: Tensor
    owned: list[Tensor]


@torch.no_grad()
def assign_best_anchor(
    targets: Targets,
    boxes_cxcywh_px: Tensor,
    *,
    anchors_px: Tensor,
    grids_hw: Sequence[tuple[int, int]],
    stride_px: Sequence[int],
    images: int,
) -> Assignment:
    """Give every truth the best of all anchors by shape IoU, in the cell of its centre.

    Source: Darknet ``yolo_layer.c`` and ``region_layer.c``, forward passes; YOLOv3 section 2.1. No
    loop over images or boxes, and no shape depends on a value: nothing waits for the device.

    Args:
        targets: the truth of a batch of B images, T boxes in all.
        boxes_cxcywh_px: float32 (T, 4), the same boxes in pixels of the network's input.
        anchors_px: float32 (L, A, 2), width and height in pixels of the network's input.
        grids_hw: height and width of each of the L raw maps.
        stride_px: pixels per cell of each level.
        images: B.

    Returns:
        The assignment of the T truths.
    """
    anchors_per_cell = anchors_px.shape[1]
    truth_wh_px = boxes_cxcywh_px[:, 2:]  # (T, 2)
    best = pairwise_shape_iou(truth_wh_px, anchors_px.reshape(-1, 2)).argmax(dim=1)  # (T,)
    level, anchor = best // anchors_per_cell, best % anchors_per_cell
    row, column = cells_of(boxes_cxcywh_px, level, grids_hw=grids_hw, stride_px=stride_px)
    return settle(
        targets,
        level=level,
        anchor=anchor,
        row=row,
        column=column,
        without=targets.ignored,
        raw_shapes=[(images, anchors_per_cell, height, width) for height, width in grids_hw],
    )


def cells_of(
    boxes_cxcywh_px: Tensor,
    level: Tensor,
    *,
    grids_hw: Sequence[tuple[int, int]],
    stride_px: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Row and column of the cell that holds each truth's centre, int64 (T,) each."""
    stride = _of_level(level, stride_px)  # (T,)
    row = _cell(boxes_cxcywh_px[:, 1], stride, _of_level(level, [height for height, _ in grids_hw]))
    column = _cell(
        boxes_cxcywh_px[:, 0], stride, _of_level(level, [width for _, width in grids_hw])
    )
    return row, column


def settle(
    targets: Targets,
    *,
    level: Tensor,
    anchor: Tensor,
    row: Tensor,
    column: Tensor,
    without: Tensor,
    raw_shapes: Sequence[tuple[int, int, int, int]],
) -> Assignment:
    """Who owns what, once every truth has chosen its place: the later truth wins a shared one.

    Args:
        targets: T truths.
        level, anchor, row, column: int64 (T,), the places.
        without: bool (T,), truths that take no place.
        raw_shapes: (B, A, H, W) of each level.
    """
    sizes = [prod(shape) for shape in raw_shapes]
    starts = _of_level(level, [sum(sizes[:i]) for i in range(len(sizes))])
    grid_h = _of_level(level, [height for _, _, height, _ in raw_shapes])  # (T,)
    grid_w = _of_level(level, [width for _, _, _, width in raw_shapes])
    anchors_per_cell = raw_shapes[0][1]
    flat = ((targets.image_index * anchors_per_cell + anchor) * grid_h + row) * grid_w + column
    total, truths = sum(sizes), len(targets)
    flat = torch.where(without, total, starts + flat)  # those have a place of their own

    truth = torch.arange(truths, device=flat.device)
    owner_of = torch.full((total + 1,), -1, device=flat.device, dtype=torch.int64)
    owner_of = owner_of.scatter_reduce(0, flat, truth, reduce="amax")
    owner = torch.where(without, truths, owner_of[flat])
    owns = owner == truth
    maps = (owner_of[:-1] >= 0).split(sizes)
    return Assignment(
        level=level,
        anchor=anchor,
        row=row,
        column=column,
        owns=owns,
        owner=owner,
        dropped=~(owns | targets.ignored),
        owned=[flags.view(shape) for flags, shape in zip(maps, raw_shapes, strict=True)],
    )


def _of_level(level: Tensor, values: Sequence[int]) -> Tensor:
    """``values[level]`` without a table on the device, whose making would wait for it. (T,)."""
    result = torch.zeros_like(level)
    for index, value in enumerate(values):
        result += (level == index) * value
    return result


def _cell(centre_px: Tensor, stride: Tensor, cells: Tensor) -> Tensor:
    """The cell of a centre; one on the far border belongs to the last cell. (T,)."""
    return torch.minimum((centre_px / stride).long().clamp(min=0), cells - 1)
