"""What the losses share: where truths live, what is read there, and who is excused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from yolo.boxes import area, cxcywh_to_xyxy
from yolo.detection.assign.best_anchor import Assignment
from yolo.detection.coders.anchor import AnchorCoder
from yolo.detection.full_precision import full_precision
from yolo.records import GridMatches, Targets

IGNORED_SHARE = 0.5
"""A prediction lies in an ignored region when more than this share of its own area does."""


def place_truths(
    raw: Sequence[Tensor],
    targets: Targets,
    *,
    coder: AnchorCoder,
    assign: Callable[..., Assignment],
) -> tuple[Tensor, Assignment]:
    """The truths in pixels of the network's input, (T, 4) cxcywh, and the anchors they own.

    Args:
        raw: maps (B, A, H, W, 5 + K).
        targets: the truth of the B images.
        coder: knows anchors and strides.
        assign: ``assign_best_anchor`` or ``assign_greedily``.
    """
    boxes_px = targets.boxes_cxcywh_norm * input_size_px(raw[0], coder.stride_px[0])
    assignment = assign(
        targets,
        boxes_px,
        anchors_px=coder.anchors_px,
        grids_hw=[(values.shape[2], values.shape[3]) for values in raw],
        stride_px=coder.stride_px,
        images=len(raw[0]),
    )
    return boxes_px, assignment


def anchor_matches(raw: Sequence[Tensor], targets: Targets, assignment: Assignment) -> GridMatches:
    """What maps of anchors say where a truth is and where none is."""
    return GridMatches(
        objectness=torch.cat(
            [full_precision(values[..., 4]).sigmoid().flatten() for values in raw]
        ),
        owned=torch.cat([owned.flatten() for owned in assignment.owned]),
        class_logits=rows_of_truths(raw, targets, assignment)[:, 5:],
        labels=targets.labels,
        counted=assignment.owns,
        dropped=assignment.dropped,
    )


@torch.no_grad()
def excused_anchors(
    raw: Sequence[Tensor],
    targets: Targets,
    boxes_cxcywh_px: Tensor,
    assignment: Assignment,
    *,
    coder: AnchorCoder,
    ignore_threshold: float,
) -> list[Tensor]:
    """The anchors that get no no-object loss, bool (B, A, H, W) for each map.

    They own a truth, or what they predict overlaps one by more than ``ignore_threshold`` or lies
    mainly in an ignored region.
    """
    truths = pad_truths(targets, boxes_cxcywh_px, len(raw[0]), ignore_threshold)
    boxes = (coder.level_boxes(values, level).flatten(1, 3) for level, values in enumerate(raw))
    return [
        covered(predicted, *truths).view(owned.shape) | owned  # (B, N) -> (B, A, H, W)
        for predicted, owned in zip(boxes, assignment.owned, strict=True)
    ]


def input_size_px(raw: Tensor, stride_px: int) -> Tensor:
    """Width, height, width, height of the network's input, (4,); filled on the device."""
    size = torch.empty(4, device=raw.device)
    size[0::2] = raw.shape[3] * stride_px
    size[1::2] = raw.shape[2] * stride_px
    return size


def rows_of_truths(raw: Sequence[Tensor], targets: Targets, assignment: Assignment) -> Tensor:
    """The raw output at the anchor of each truth: float32 (T, 5 + K).

    Every level is read at T places, its own truths' or place 0, so that no shape depends on how
    the truths spread over the levels.
    """
    rows = []
    for level, values in enumerate(raw):
        here = assignment.level == level
        at = [
            torch.where(here, index, 0)
            for index in (targets.image_index, assignment.anchor, assignment.row, assignment.column)
        ]
        found = full_precision(values[at[0], at[1], at[2], at[3]])
        rows.append(found.where(here[:, None], 0.0))
    return torch.stack(rows).sum(dim=0)  # (L, T, 5 + K) -> (T, 5 + K)


def pad_truths(
    targets: Targets, boxes_cxcywh_px: Tensor, images: int, ignore_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Truths per image, padded to M = ``targets.max_per_image``, with the test they stand for.

    A prediction with area p that shares the area s with a truth of area t is excused where
    ``s > share * p + floor``:

    - IoU above a threshold h is s > h * (p + t - s), so share = h / (1 + h), floor = share * t
    - mainly inside an ignored region is s > 0.5 * p, so share = 0.5, floor = 0
    - a padded place excuses nothing: floor = infinity

    Returns:
        Boxes xyxy in pixels (B, M, 4), shares (B, M), floors (B, M).
    """
    image, device = targets.image_index, boxes_cxcywh_px.device
    first = torch.searchsorted(image, torch.arange(images, device=device))  # (B,)
    place = torch.arange(len(targets), device=device) - first[image]  # (T,) 0..M-1

    most = targets.max_per_image
    corners = cxcywh_to_xyxy(boxes_cxcywh_px)
    share = ignore_threshold / (1 + ignore_threshold)
    boxes = corners.new_zeros(images, most, 4)
    shares = corners.new_zeros(images, most)
    floors = corners.new_full((images, most), torch.inf)
    boxes[image, place] = corners
    shares[image, place] = torch.where(targets.ignored, IGNORED_SHARE, share).to(corners)
    floors[image, place] = torch.where(targets.ignored, 0.0, share * area(corners))
    return boxes, shares, floors


def covered(boxes: Tensor, truths: Tensor, shares: Tensor, floors: Tensor) -> Tensor:
    """Which predictions a truth of their image excuses. (B, N, 4), (B, M, ...) -> bool (B, N).

    Written coordinate by coordinate: (B, M, N) planes are read and written once each, which is
    what decides its speed.
    """
    x1, y1, x2, y2 = boxes.transpose(1, 2).contiguous().unsqueeze(2).unbind(1)  # each (B, 1, N)
    left, top, right, bottom = truths.unsqueeze(-1).unbind(2)  # each (B, M, 1)
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)  # (B, M, N)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0)
    needed = torch.addcmul(floors.unsqueeze(-1), shares.unsqueeze(-1), (x2 - x1) * (y2 - y1))
    return (width.mul_(height) > needed).any(dim=1)
