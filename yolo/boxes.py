"""Box formats and the IoU family: pure functions on tensors.

A box tensor's name ends in its format and frame: ``boxes_xyxy_px`` (corners, pixels),
``boxes_cxcywh_norm`` (centre and size, relative to the image).
"""

from __future__ import annotations

from math import pi
from typing import Literal

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


IouKind = Literal["iou", "giou", "diou", "ciou"]
EPSILON = 1e-7  # as in torchvision.ops


def iou_loss(kind: IouKind, found_xyxy: Tensor, truth_xyxy: Tensor) -> Tensor:
    """One minus the IoU, or a relative, of boxes side by side. (..., 4), (..., 4) -> (...).

    - ``iou``: has no gradient where the boxes do not overlap
    - ``giou``: plus the share of their hull that neither covers (https://arxiv.org/abs/1902.09630)
    - ``diou``: plus the squared distance of their centres, in diagonals of the hull
    - ``ciou``: plus the difference of their aspect ratios, with a weight that has no gradient (both
      https://arxiv.org/abs/1911.08287)

    torchvision.ops has the three last ones, with the same gradients; but it selects by a mask, and
    so waits for the device.
    """
    low, high = torch.minimum(found_xyxy, truth_xyxy), torch.maximum(found_xyxy, truth_xyxy)
    width, height = (low[..., 2:] - high[..., :2]).clamp(min=0).unbind(-1)  # of the intersection
    w, h = (found_xyxy[..., 2:] - found_xyxy[..., :2]).unbind(-1)
    truth_w, truth_h = (truth_xyxy[..., 2:] - truth_xyxy[..., :2]).unbind(-1)
    union = w * h + truth_w * truth_h - width * height
    loss = 1 - width * height / (union + EPSILON)
    if kind == "iou":
        return loss
    hull_w, hull_h = (high[..., 2:] - low[..., :2]).unbind(-1)
    if kind == "giou":
        return loss + (hull_w * hull_h - union) / (hull_w * hull_h + EPSILON)
    between = (found_xyxy - truth_xyxy).unflatten(-1, (2, 2)).sum(-2) / 2  # the centres
    x, y = between.unbind(-1)
    distance = (x * x + y * y) / (hull_w * hull_w + hull_h * hull_h + EPSILON)
    if kind == "diou":
        return loss + distance
    angle = torch.atan2(w.clamp(min=EPSILON), h.clamp(min=EPSILON))
    aspect = 4 / pi**2 * (torch.atan2(truth_w, truth_h) - angle).square()
    weight = (aspect / (loss.clamp(min=0) + aspect + EPSILON)).detach()
    return loss + distance + weight * aspect
