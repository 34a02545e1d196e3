"""Box formats and the IoU family: pure functions on tensors.

A box tensor's name ends in its format and frame: ``boxes_xyxy_px`` (corners, pixels),
``boxes_cxcywh_norm`` (centre and size, relative to the image).
"""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Centre and size to corners. (..., 4) -> (..., 4)."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def area(boxes_xyxy: Tensor) -> Tensor:
    """Area of corner boxes, 0 where a box is inverted. (..., 4) -> (...)."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0).prod(dim=-1)


def pairwise_intersection(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection area of all pairs. (..., N, 4), (..., M, 4) -> (..., N, M)."""
    a, b = a_xyxy[..., :, None, :], b_xyxy[..., None, :, :]
    low = torch.maximum(a[..., :2], b[..., :2])  # (..., N, M, 2)
    high = torch.minimum(a[..., 2:], b[..., 2:])  # (..., N, M, 2)
    return (high - low).clamp(min=0).prod(dim=-1)


def pairwise_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU, 0 where both boxes are empty. (..., N, 4), (..., M, 4) -> (..., N, M)."""
    intersection = pairwise_intersection(a_xyxy, b_xyxy)
    union = area(a_xyxy)[..., :, None] + area(b_xyxy)[..., None, :] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def pairwise_shape_iou(a_wh: Tensor, b_wh: Tensor) -> Tensor:
    """IoU of boxes that share their centre: sizes (N, 2) and (M, 2) -> (N, M)."""
    a, b = a_wh[:, None, :], b_wh[None, :, :]
    intersection = torch.minimum(a, b).prod(dim=-1)  # (N, M)
    union = a.prod(dim=-1) + b.prod(dim=-1) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)
