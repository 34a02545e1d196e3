"""Which truth owns which anchor or cell: pure functions without gradients.

No loop over images or boxes, and no shape depends on a value: nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from yolo.boxes import pairwise_shape_iou
from yolo.detection.coders import AnchorCoder, full_precision
from yolo.records import Targets

TAKEN = -1.0  # the fit of a pair whose truth or anchor is taken

Maps = Sequence[Tensor]
"""Raw maps (B, A, H, W, 5 + K), one for each level."""

Place = tuple[Tensor, Tensor, Tensor, Tensor]
"""Level, anchor, row and column of boxes of the maps, int64."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """P pairs of one of T truths with an anchor of a cell, as int64 (P,), truth after truth.

    A rule makes the same number of pairs for every truth; those that it excludes own nothing.
    """

    truth: Tensor  # index of the truth
    level: Tensor  # index of the raw map
    anchor: Tensor  # index of the anchor within it
    row: Tensor
    column: Tensor
    owns: Tensor  # bool (P,): not excluded, and no later pair has the same place
    owner: Tensor  # the pair that finally holds this one's place; P if this one is excluded
    dropped: Tensor  # bool (T,): the truths that own nothing though they are not ignored
    owned: list[Tensor]  # per level bool (B, A, H, W), the anchors that some truth owns


@dataclass(frozen=True, slots=True)
class CellAssignment:
    """The cells that hold the centres of T truths, as int64 (T,)."""

    row: Tensor
    column: Tensor
    cell: Tensor  # the same as an index into the cells of the whole batch, B * S * S
    owns: Tensor  # bool (T,): neither ignored nor is an earlier truth in the cell


Assign = Callable[[Targets, Tensor, AnchorCoder, Maps], Assignment]
"""A rule: from the truth of a batch, the same T boxes float32 (T, 4) as cxcywh in pixels of the
network's input, a coder with anchors (L, A, 2), and L raw maps."""


@torch.no_grad()
def assign_best_anchor(
    targets: Targets, boxes_cxcywh_px: Tensor, coder: AnchorCoder, raw: Maps
) -> Assignment:
    """Give every truth the best of all anchors by shape IoU; the later truth wins a shared one.

    Darknet's ``yolo_layer.c`` and ``region_layer.c``, forward passes; YOLOv3 section 2.1.
    """
    anchors_px, anchors = coder.anchors_px.flatten(0, 1), coder.anchors_px.shape[1]
    best = pairwise_shape_iou(boxes_cxcywh_px[:, 2:], anchors_px).argmax(dim=1)  # (T,)
    level, anchor = best // anchors, best % anchors
    place = (level, anchor, *cells_of(boxes_cxcywh_px, level, coder, raw))
    truth = torch.arange(len(targets), device=best.device)
    return find_owners(targets, truth, place, targets.ignored, raw)


@torch.no_grad()
def assign_greedily(
    targets: Targets, boxes_cxcywh_px: Tensor, coder: AnchorCoder, raw: Maps
) -> Assignment:
    """Pair truths with the anchors of their cell by descending shape IoU, each anchor once.

    Where ``assign_best_anchor`` lets the later of two truths win an anchor, here the worse fit
    takes its next best one; a truth is left over only where its cell has more truths than anchors.
    Of equal fits the earlier truth, then the earlier anchor, counts. For one raw map (L = 1).
    """
    images, anchors, height, width = raw[0].shape[:4]
    (anchors_px,) = coder.anchors_px  # (A, 2)
    level = torch.zeros_like(targets.labels)
    row, column = cells_of(boxes_cxcywh_px, level, coder, raw)
    fits = pairwise_shape_iou(boxes_cxcywh_px[:, 2:], anchors_px)  # (T, A)
    anchor = _pair_off(
        fits.masked_fill(targets.ignored[:, None], TAKEN),
        (targets.image_index * height + row) * width + column,  # (T,)
        cells=images * height * width,
        rounds=min(anchors, targets.max_per_image),
    )
    place = (level, anchor.clamp(min=0), row, column)
    truth = torch.arange(len(targets), device=anchor.device)
    return find_owners(targets, truth, place, anchor < 0, raw)


@torch.no_grad()
def assign_by_shape_iou(
    targets: Targets, boxes_cxcywh_px: Tensor, coder: AnchorCoder, raw: Maps, *, threshold: float
) -> Assignment:
    """The best anchor, and every other one whose shape IoU is above the threshold.

    AlexeyAB's Darknet, ``iou_thresh`` of ``yolo_layer.c``. P = T * L * A.
    """
    fits = pairwise_shape_iou(boxes_cxcywh_px[:, 2:], coder.anchors_px.flatten(0, 1))  # (T, L * A)
    chosen = (fits > threshold).scatter(1, fits.argmax(dim=1, keepdim=True), True).flatten()
    truth, place = _every_anchor(boxes_cxcywh_px, coder, raw)
    return find_owners(targets, truth, place, ~chosen | targets.ignored[truth], raw)


@torch.no_grad()
def assign_by_ratio(
    targets: Targets, boxes_cxcywh_px: Tensor, coder: AnchorCoder, raw: Maps, *, factor: float
) -> Assignment:
    """Every anchor with both sides within a factor of the truth's, in up to three cells.

    YOLOv5's rule, as arXiv 2208.09686 describes it: the cell of the truth's centre, and the nearer
    ones of its neighbours, left or right and above or below, where the map has them. The centre is
    up to half a cell outside those: the coder needs a ``scale_xy`` of 2 or more. A truth that no
    anchor fits has the nearest, where YOLOv5 drops it. P = T * L * A * 3.
    """
    truth, (level, anchor, row, column) = _every_anchor(boxes_cxcywh_px, coder, raw)
    boxes_px = boxes_cxcywh_px[truth]  # (T * L * A, 4)
    ratio = boxes_px[:, 2:] / coder.anchors_px[level, anchor]
    worst = torch.maximum(ratio, 1 / ratio).amax(dim=1)  # (T * L * A,)
    worst = worst.view(len(targets), coder.anchors_px[..., 0].numel())
    fits = (worst < factor).scatter(1, worst.argmin(dim=1, keepdim=True), True).flatten()
    within = boxes_px[:, :2] / coder.strides[level][:, None] - torch.stack((column, row), dim=1)
    right, down = torch.where(within < 0.5, -1, 1).unbind(1)
    rows = torch.stack((row, row, row + down), dim=1).flatten()  # (T * L * A, 3) -> (P,)
    columns = torch.stack((column, column + right, column), dim=1).flatten()
    truth, level, anchor, fits = (
        each[:, None].expand(-1, 3).flatten() for each in (truth, level, anchor, fits)
    )
    row, column = into_maps(level, rows, columns, raw)
    excluded = (row != rows) | (column != columns) | ~fits | targets.ignored[truth]
    return find_owners(targets, truth, (level, anchor, row, column), excluded, raw)


def _every_anchor(boxes_cxcywh_px: Tensor, coder: AnchorCoder, raw: Maps) -> tuple[Tensor, Place]:
    """Each truth (T * L * A,) with all anchors of all levels in the cell of its centre."""
    levels, anchors = coder.anchors_px.shape[:2]
    count = len(boxes_cxcywh_px) * levels * anchors
    pair = torch.arange(count, device=boxes_cxcywh_px.device)
    truth, level, anchor = pair // (levels * anchors), pair // anchors % levels, pair % anchors
    return truth, (level, anchor, *cells_of(boxes_cxcywh_px[truth], level, coder, raw))


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


def cells_of(
    boxes_cxcywh_px: Tensor, level: Tensor, coder: AnchorCoder, raw: Maps
) -> tuple[Tensor, Tensor]:
    """Row and column of each box's centre, int64 (T,); on the far border the last cell's."""
    stride = _of_level(level, coder.stride_px)  # (T,)
    column, row = (boxes_cxcywh_px[:, :2] / stride[:, None]).long().unbind(1)
    return into_maps(level, row, column, raw)


def into_maps(level: Tensor, row: Tensor, column: Tensor, raw: Maps) -> tuple[Tensor, Tensor]:
    """The nearest row and column that the map of each level has, int64 of the same shape."""
    last_row, last_column = (
        _of_level(level, [values.shape[axis] - 1 for values in raw]) for axis in (2, 3)
    )
    row = torch.minimum(row.clamp(min=0), last_row)
    return row, torch.minimum(column.clamp(min=0), last_column)


def _of_level(level: Tensor, values: Sequence[int]) -> Tensor:
    """``values[level]`` without a table on the device, whose making would wait for it."""
    result = torch.zeros_like(level)
    for index, value in enumerate(values):
        result += (level == index) * value
    return result


def _owners(place: Tensor, excluded: Tensor, places: int, which: Literal["amin", "amax"]) -> Tensor:
    """The first (``amin``) or last of those at each place: int64 (places,), -1 where none is.

    ``place`` int64 (P,) is where they want to be; those ``excluded`` take no place.
    """
    place = torch.where(excluded, places, place)  # one place more is theirs
    owners = torch.full((places + 1,), -1, device=place.device, dtype=torch.int64)
    number = torch.arange(len(place), device=place.device)
    return owners.scatter_reduce(0, place, number, reduce=which, include_self=False)[:-1]


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


def find_owners(
    targets: Targets, truth: Tensor, place: Place, excluded: Tensor, raw: Maps
) -> Assignment:
    """Of the pairs with the same place in the same image, the last one owns it.

    All are of shape (P,); those ``excluded`` take no place.
    """
    level, anchor, row, column = place
    sizes = [prod(values.shape[:4]) for values in raw]  # B * A * H * W each
    start = _of_level(level, [sum(sizes[:i]) for i in range(len(sizes))])
    height, width = (_of_level(level, [values.shape[axis] for values in raw]) for axis in (2, 3))
    row_of_all = (targets.image_index[truth] * raw[0].shape[1] + anchor) * height + row
    index = start + row_of_all * width + column  # into the boxes of all maps
    owners = _owners(index, excluded, sum(sizes), "amax")
    owner = torch.where(excluded, len(truth), owners[index])
    owns = owner == torch.arange(len(truth), device=owner.device)
    has_place = _owners(truth, ~owns, len(targets), "amax") >= 0  # (T,)
    maps = (owners >= 0).split(sizes)
    owned = [flags.view(values.shape[:4]) for flags, values in zip(maps, raw, strict=True)]
    dropped = ~(has_place | targets.ignored)
    return Assignment(truth, *place, owns=owns, owner=owner, dropped=dropped, owned=owned)


def raw_at(raw: Maps, image: Tensor, place: Place) -> Tensor:
    """What the maps hold at places (P,): float32 (P, 5 + K).

    Every level is read at P places, its own or place 0, so that no shape depends on how the places
    spread over the levels.
    """
    rows = []
    for level, values in enumerate(raw):
        here = place[0] == level
        found = values[tuple(torch.where(here, index, 0) for index in (image, *place[1:]))]
        rows.append(full_precision(found).where(here[:, None], 0.0))  # (P, 5 + K)
    return torch.stack(rows).sum(dim=0)  # (L, P, 5 + K) -> (P, 5 + K)
