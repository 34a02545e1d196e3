"""YOLOv2 with crowded cells: truths and anchors of a cell pair off, the best fit first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from yolo.boxes import pairwise_shape_iou
from yolo.detection.assign.best_anchor import Assignment, cells_of, settle
from yolo.records import Targets

GONE = -1.0
"""The fit of a pair whose truth or anchor is taken."""


@torch.no_grad()
def assign_greedily(
    targets: Targets,
    boxes_cxcywh_px: Tensor,
    *,
    anchors_px: Tensor,
    grids_hw: Sequence[tuple[int, int]],
    stride_px: Sequence[int],
    images: int,
) -> Assignment:
    """Pair truths with the anchors of their cell by descending shape IoU, each anchor once.

    Darknet gives two truths of one cell the same anchor where it fits both best, and the later one
    wins. Here the worse fit takes its next best anchor; a truth is left over only where its cell
    has more truths than anchors. Of equal fits the earlier truth, then the earlier anchor, counts.

    No loop over images or boxes: one round for each anchor of a cell at most.

    Args:
        targets: the truth of a batch of B images, T boxes in all.
        boxes_cxcywh_px: float32 (T, 4), the same boxes in pixels of the network's input.
        anchors_px: float32 (1, A, 2), width and height in pixels of the network's input.
        grids_hw: height and width of the one raw map.
        stride_px: pixels per cell.
        images: B.

    Returns:
        The assignment of the T truths; ``dropped`` are those left over.
    """
    ((height, width),) = grids_hw
    anchors = anchors_px.shape[1]
    level = torch.zeros_like(targets.labels)
    row, column = cells_of(boxes_cxcywh_px, level, grids_hw=grids_hw, stride_px=stride_px)
    cell = (targets.image_index * height + row) * width + column  # (T,)
    fits = pairwise_shape_iou(boxes_cxcywh_px[:, 2:], anchors_px[0])  # (T, A)
    anchor = _pair_off(
        fits.masked_fill(targets.ignored[:, None], GONE),
        cell,
        cells=images * height * width,
        rounds=min(anchors, targets.max_per_image),
    )
    return settle(
        targets,
        level=level,
        anchor=anchor.clamp(min=0),
        row=row,
        column=column,
        without=anchor < 0,
        raw_shapes=[(images, anchors, height, width)],
    )


def _pair_off(fits: Tensor, cell: Tensor, *, cells: int, rounds: int) -> Tensor:
    """One pair of each cell in every round, the best that is left.

    Args:
        fits: (T, A), ``GONE`` where a pair is out of the question.
        cell: int64 (T,), the cell of each truth.
        cells: of all images.
        rounds: at most so many truths of a cell get an anchor.

    Returns:
        The anchor of each truth, -1 for none: int64 (T,).
    """
    truths, anchors = fits.shape
    truth = torch.arange(truths, device=fits.device)
    each_anchor = torch.arange(anchors, device=fits.device)
    anchor = torch.full_like(cell, -1)
    for _ in range(rounds):
        best, choice = fits.max(dim=1)  # (T,) each
        best_of_cell = fits.new_full((cells,), GONE).scatter_reduce(0, cell, best, reduce="amax")
        candidate = torch.where((best == best_of_cell[cell]) & (best > GONE), truth, truths)
        first_of_cell = cell.new_full((cells,), truths).scatter_reduce(
            0, cell, candidate, reduce="amin"
        )
        winner = first_of_cell[cell]  # (T,), the truth that wins this truth's cell; T for none
        wins = winner == truth
        anchor = torch.where(wins, choice, anchor)
        choice_of_winner = torch.cat((choice, choice.new_full((1,), -1)))[winner]  # (T,)
        taken = (choice_of_winner[:, None] == each_anchor) | wins[:, None]  # (T, A)
        fits = fits.masked_fill(taken, GONE)
    return anchor
