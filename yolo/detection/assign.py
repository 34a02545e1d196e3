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

TAKEN = -1.0  # the fit of a pair whose truth or anchor is taken


@dataclass(frozen=True, slots=True)
class Assignment:
    """The anchors that T truths chose, as int64 (T,)."""

    level: Tensor  # index of the raw map
    anchor: Tensor  # index of the anchor within it
    row: Tensor  # of the cell that holds the truth's centre
    column: Tensor
    owns: Tensor  # bool (T,): not ignored, not left over, and no later truth took the same anchor
    owner: Tensor  # the truth that finally holds this one's anchor; T if ignored or left over
    dropped: Tensor  # bool (T,): owns nothing though it is not ignored
    owned: list[Tensor]  # per level bool (B, A, H, W), the anchors that some truth owns


@dataclass(frozen=True, slots=True)
class CellAssignment:
    """The cells that hold the centres of T truths, as int64 (T,)."""

    row: Tensor
    column: Tensor
    cell: Tensor  # the same as an index into the cells of the whole batch, B * S * S
    owns: Tensor  # bool (T,): neither ignored nor is an earlier truth in the cell


@torch.no_grad()
def assign_best_anchor(
    targets: Targets, boxes_cxcywh_px: Tensor, coder: AnchorCoder, *, grids_hw: GridsHW, images: int
) -> Assignment:
    """Give every truth the best of all anchors by shape IoU; the later truth wins a shared one.

    Darknet's ``yolo_layer.c`` and ``region_layer.c``, forward passes; YOLOv3 section 2.1.

    Args:
        targets: the truth of a batch of B = ``images`` images, T boxes in all.
        boxes_cxcywh_px: float32 (T, 4), the same boxes in pixels of the network's input.
        coder: knows the anchors (L, A, 2) and strides.
        grids_hw: height and width of each of the L raw maps.
    """
    anchors_px, anchors = coder.anchors_px.flatten(0, 1), coder.anchors_px.shape[1]
    best = pairwise_shape_iou(boxes_cxcywh_px[:, 2:], anchors_px).argmax(dim=1)  # (T,)
    level, anchor = best // anchors, best % anchors
    row, column = _cells_of(boxes_cxcywh_px, level, grids_hw, coder.stride_px)
    shapes = [(images, anchors, *grid_hw) for grid_hw in grids_hw]
    return _find_owners(targets, (level, anchor, row, column), targets.ignored, shapes)


@torch.no_grad()
def assign_greedily(
    targets: Targets, boxes_cxcywh_px: Tensor, coder: AnchorCoder, *, grids_hw: GridsHW, images: int
) -> Assignment:
    """Pair truths with the anchors of their cell by descending shape IoU, each anchor once.

    Where ``assign_best_anchor`` lets the later of two truths win an anchor, here the worse fit
    takes its next best one; a truth is left over only where its cell has more truths than anchors.
    Of equal fits the earlier truth, then the earlier anchor, counts. For one raw map (L = 1).
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
    return _find_owners(targets, place, anchor < 0, [(images, len(anchors_px), height, width)])


@torch.no_grad()
def assign_first_in_cell(targets: Targets, *, cells: int, images: int) -> CellAssignment:
    """YOLOv1: give each of S * S ``cells`` of an image the first truth whose centre it holds.

    As Darknet's ``data.c``, which shuffles the truths of an image beforehand (here the order is the
    data set's). A centre on the far border belongs to the last cell.
    """
    place = (targets.boxes_cxcywh_norm[:, :2] * cells).long().clamp(0, cells - 1)  # (T, 2)
    column, row = place.unbind(1)
    cell = (targets.image_index * cells + row) * cells + column
    owner = _owners(cell, targets.ignored, images * cells * cells, "amin")[cell]
    owns = owner == torch.arange(len(targets), device=cell.device)
    return CellAssignment(row=row, column=column, cell=cell, owns=owns)


def _cells_of(
    boxes_cxcywh_px: Tensor, level: Tensor, grids_hw: GridsHW, stride_px: Sequence[int]
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


def _owners(place: Tensor, excluded: Tensor, places: int, which: Literal["amin", "amax"]) -> Tensor:
    """The first (``amin``) or last truth of each place: int64 (places,), -1 where there is none.

    ``place`` int64 (T,) is where truths want to be; those ``excluded`` take no place.
    """
    place = torch.where(excluded, places, place)  # one place more is theirs
    owners = torch.full((places + 1,), -1, device=place.device, dtype=torch.int64)
    truth = torch.arange(len(place), device=place.device)
    return owners.scatter_reduce(0, place, truth, reduce=which, include_self=False)[:-1]


def _pair_off(fits: Tensor, cell: Tensor, *, cells: int, rounds: int) -> Tensor:
    """The anchor of each truth, -1 for none: int64 (T,).

    In every round the best of the fits (T, A) that are left in a cell makes a pair.
    """
    truth, each_anchor = (torch.arange(size, device=fits.device) for size in fits.shape)
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


def _find_owners(
    targets: Targets,
    place: tuple[Tensor, Tensor, Tensor, Tensor],
    excluded: Tensor,
    shapes: Sequence[tuple[int, int, int, int]],
) -> Assignment:
    """Of the truths that chose the same place (level, anchor, row, column), the last one owns it.

    Those ``excluded`` take no place; ``shapes`` are (B, A, H, W) of each level.
    """
    level, anchor, row, column = place
    sizes = [prod(shape) for shape in shapes]
    start = _of_level(level, [sum(sizes[:i]) for i in range(len(sizes))])  # (T,)
    height, width = (_of_level(level, [shape[axis] for shape in shapes]) for axis in (2, 3))
    flat = ((targets.image_index * shapes[0][1] + anchor) * height + row) * width + column
    owners = _owners(start + flat, excluded, sum(sizes), "amax")
    owner = torch.where(excluded, len(targets), owners[start + flat])
    owns = owner == torch.arange(len(targets), device=owner.device)
    dropped = ~(owns | targets.ignored)
    maps = (owners >= 0).split(sizes)
    owned = [flags.view(shape) for flags, shape in zip(maps, shapes, strict=True)]
    return Assignment(*place, owns=owns, owner=owner, dropped=dropped, owned=owned)
