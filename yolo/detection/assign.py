"""Which truth owns which anchor or cell: pure functions without gradients.

No loop over images or boxes, and no shape depends on a value: nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from yolo.boxes import pairwise_shape_iou
from yolo.detection.coders import AnchorCoder
from yolo.records import Targets

GridsHW = Sequence[tuple[int, int]]

TAKEN = -1.0
"""The fit of a pair whose truth or anchor is taken."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The anchors that T truths chose.

    Attributes:
        level, anchor: int64 (T,), index of the raw map, and of the anchor within it.
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


@dataclass(frozen=True, slots=True)
class CellAssignment:
    """The cells of T truths.

    Attributes:
        row, column: int64 (T,), the cell that holds the truth's centre.
        cell: int64 (T,), the same as an index into the cells of the whole batch, B * S * S.
        owns: bool (T,). False for ignored truths, and where an earlier truth took the cell.
    """

    row: Tensor
    column: Tensor
    cell: Tensor
    owns: Tensor


@torch.no_grad()
def assign_best_anchor(
    targets: Targets,
    boxes_cxcywh_px: Tensor,
    coder: AnchorCoder,
    *,
    grids_hw: GridsHW,
    images: int,
) -> Assignment:
    """Give every truth the best of all anchors by shape IoU; the later truth wins a shared one.

    Source: Darknet ``yolo_layer.c`` and ``region_layer.c``, forward passes; YOLOv3 section 2.1.

    Args:
        targets: the truth of a batch of B images, T boxes in all.
        boxes_cxcywh_px: float32 (T, 4), the same boxes in pixels of the network's input.
        coder: knows the anchors (L, A, 2) and strides.
        grids_hw: height and width of each of the L raw maps.
        images: B.
    """
    anchors_px, anchors = coder.anchors_px.flatten(0, 1), coder.anchors_px.shape[1]
    fits = pairwise_shape_iou(boxes_cxcywh_px[:, 2:], anchors_px)  # (T, L * A)
    best = fits.argmax(dim=1)  # (T,)
    level, anchor = best // anchors, best % anchors
    row, column = _cells_of(boxes_cxcywh_px, level, grids_hw, coder.stride_px)
    shapes = [(images, anchors, *grid_hw) for grid_hw in grids_hw]
    return _settle(targets, (level, anchor, row, column), targets.ignored, shapes)


@torch.no_grad()
def assign_greedily(
    targets: Targets,
    boxes_cxcywh_px: Tensor,
    coder: AnchorCoder,
    *,
    grids_hw: GridsHW,
    images: int,
) -> Assignment:
    """Pair truths with the anchors of their cell by descending shape IoU, each anchor once.

    Where ``assign_best_anchor`` lets the later of two truths win an anchor, here the worse fit
    takes its next best one; a truth is left over only where its cell has more truths than anchors.
    Of equal fits the earlier truth, then the earlier anchor, counts. The arguments are those of
    ``assign_best_anchor``, for one raw map (L = 1).
    """
    ((height, width),) = grids_hw
    (anchors_px,) = coder.anchors_px  # (A, 2)
    level = torch.zeros_like(targets.labels)
    row, column = _cells_of(boxes_cxcywh_px, level, grids_hw, coder.stride_px)
    fits = pairwise_shape_iou(boxes_cxcywh_px[:, 2:], anchors_px)  # (T, A)
    anchor = _pair_off(
        fits.masked_fill(targets.ignored[:, None], TAKEN),
        (targets.image_index * height + row) * width + column,  # (T,)
        cells=images * height * width,
        rounds=min(len(anchors_px), targets.max_per_image),
    )
    place = (level, anchor.clamp(min=0), row, column)
    return _settle(targets, place, anchor < 0, [(images, len(anchors_px), height, width)])


@torch.no_grad()
def assign_first_in_cell(targets: Targets, *, cells: int, images: int) -> CellAssignment:
    """YOLOv1: give each cell the first truth whose centre it holds.

    Source: Darknet ``data.c``, where a cell's truth is written once (it shuffles the truths of an
    image beforehand; here the order is the data set's). A centre on the far border belongs to the
    last cell.

    Args:
        targets: the truth of a batch of B images, T boxes in all.
        cells: S, cells per side.
        images: B.
    """
    place = (targets.boxes_cxcywh_norm[:, :2] * cells).long().clamp(0, cells - 1)  # (T, 2)
    column, row = place.unbind(1)
    cell = (targets.image_index * cells + row) * cells + column
    owner = _owners(cell, targets.ignored, images * cells * cells, "amin")[cell]
    owns = owner == torch.arange(len(targets), device=cell.device)
    return CellAssignment(row=row, column=column, cell=cell, owns=owns)


def _cells_of(
    boxes_cxcywh_px: Tensor,
    level: Tensor,
    grids_hw: GridsHW,
    stride_px: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Row and column of each truth's centre, int64 (T,); on the far border the last cell's."""
    stride = _of_level(level, stride_px)  # (T,)
    heights, widths = zip(*grids_hw, strict=True)
    column, row = (boxes_cxcywh_px[:, :2] / stride[:, None]).long().clamp(min=0).unbind(1)
    row = torch.minimum(row, _of_level(level, heights) - 1)
    return row, torch.minimum(column, _of_level(level, widths) - 1)


def _of_level(level: Tensor, values: Sequence[int]) -> Tensor:
    """``values[level]`` without a table on the device, whose making would wait for it. (T,)."""
    result = torch.zeros_like(level)
    for index, value in enumerate(values):
        result += (level == index) * value
    return result


def _owners(place: Tensor, without: Tensor, places: int, which: Literal["amin", "amax"]) -> Tensor:
    """The first (``amin``) or last truth of each place: int64 (places,), -1 where there is none.

    ``place`` int64 (T,) is where truths want to be; those ``without`` take no place.
    """
    place = torch.where(without, places, place)  # those have one of their own
    owners = torch.full((places + 1,), -1, device=place.device, dtype=torch.int64)
    truth = torch.arange(len(place), device=place.device)
    return owners.scatter_reduce(0, place, truth, reduce=which, include_self=False)[:-1]


def _pair_off(fits: Tensor, cell: Tensor, *, cells: int, rounds: int) -> Tensor:
    """The anchor of each truth, -1 for none: int64 (T,).

    In every round the best of the fits (T, A) that are left in a cell makes a pair; ``TAKEN`` marks
    those out of the question.
    """
    truths, anchors = fits.shape
    truth = torch.arange(truths, device=fits.device)
    each_anchor = torch.arange(anchors, device=fits.device)
    anchor = torch.full_like(cell, -1)
    for _ in range(rounds):
        best, choice = fits.max(dim=1)  # (T,) each
        best_of_cell = fits.new_full((cells,), TAKEN).scatter_reduce(0, cell, best, reduce="amax")
        candidate = (best == best_of_cell[cell]) & (best > TAKEN)
        winner = _owners(cell, ~candidate, cells, "amin")[cell]  # (T,), who wins this truth's cell
        wins = winner == truth
        anchor = torch.where(wins, choice, anchor)
        choice_of_winner = torch.where(winner < 0, -1, choice[winner])  # (T,)
        taken = (choice_of_winner[:, None] == each_anchor) | wins[:, None]  # (T, A)
        fits = fits.masked_fill(taken, TAKEN)
    return anchor


def _settle(
    targets: Targets,
    place: tuple[Tensor, Tensor, Tensor, Tensor],
    without: Tensor,
    shapes: Sequence[tuple[int, int, int, int]],
) -> Assignment:
    """Who owns what, once truths have chosen a level, anchor, row and column: the later one wins.

    Those ``without`` take no place; ``shapes`` are (B, A, H, W) of each level.
    """
    level, anchor, row, column = place
    sizes = [prod(shape) for shape in shapes]
    start = _of_level(level, [sum(sizes[:i]) for i in range(len(sizes))])  # (T,)
    height, width = (_of_level(level, [shape[axis] for shape in shapes]) for axis in (2, 3))
    flat = ((targets.image_index * shapes[0][1] + anchor) * height + row) * width + column
    owners = _owners(start + flat, without, sum(sizes), "amax")
    owner = torch.where(without, len(targets), owners[start + flat])
    owns = owner == torch.arange(len(targets), device=owner.device)
    maps = (owners >= 0).split(sizes)
    return Assignment(
        level=level,
        anchor=anchor,
        row=row,
        column=column,
        owns=owns,
        owner=owner,
        dropped=~(owns | targets.ignored),
        owned=[flags.view(shape) for flags, shape in zip(maps, shapes, strict=True)],
    )
