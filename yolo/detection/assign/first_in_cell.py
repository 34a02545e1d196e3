"""YOLOv1's assignment: the cell of its centre owns a truth, and only the first one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolo.records import Targets


@dataclass(frozen=True, slots=True)
class CellAssignment:
    """Where each of T truths lives; row t of every tensor belongs to truth t.

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
def assign_first_in_cell(targets: Targets, *, cells: int, images: int) -> CellAssignment:
    """Give each cell the first truth whose centre it holds.

    Source: Darknet ``data.c``, where a cell's truth is written once (it shuffles the truths of an
    image beforehand; here the order is the data set's). A centre on the far border belongs to the
    last cell. No loop over images or boxes, and no shape depends on a value.

    Args:
        targets: the truth of a batch of B images, T boxes in all.
        cells: S, cells per side.
        images: B.

    Returns:
        The assignment of the T truths.
    """
    place = (targets.boxes_cxcywh_norm[:, :2] * cells).long().clamp(0, cells - 1)  # (T, 2)
    column, row = place.unbind(1)
    cell = (targets.image_index * cells + row) * cells + column
    total = images * cells * cells
    wanted = torch.where(targets.ignored, total, cell)  # ignored: a place of their own

    truth = torch.arange(len(targets), device=cell.device)
    first = torch.full((total + 1,), len(targets), device=cell.device, dtype=torch.int64)
    first = first.scatter_reduce(0, wanted, truth, reduce="amin")  # the first truth wins
    owns = (first[wanted] == truth) & ~targets.ignored
    return CellAssignment(row=row, column=column, cell=cell, owns=owns)
