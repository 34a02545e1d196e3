"""What all losses share: float32, the divisor, the ignore mask; and the loss of a classifier."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.boxes import area, cxcywh_to_xyxy
from yolo.detection.coders import full_precision
from yolo.records import Targets

IGNORED_SHARE = 0.5
"""A prediction lies in an ignored region when more than this share of its own area does."""


class Loss(nn.Module):
    """A loss of several terms; each subclass computes them in ``terms``."""

    def forward(
        self, outputs: Any, targets: Targets, images_in_step: int, images_seen: int | None = None
    ) -> dict[str, Tensor]:
        """The terms, float32 scalars whose sum is the loss: of B images, divided by the step's.

        Args:
            outputs: the network's raw maps or logits, of any precision.
            targets: the truth of the B images.
            images_in_step: images of the whole optimizer step, over all micro-batches and ranks:
                the gradients of all of them add up to that of one big batch.
            images_seen: images that the steps before have trained on; None outside training.
        """
        with torch.autocast(outputs[0].device.type, enabled=False):
            terms = self.terms(outputs, targets, images_seen)
            return {name: term / images_in_step for name, term in terms.items()}

    def terms(self, outputs: Any, targets: Targets, images_seen: int | None) -> dict[str, Tensor]:
        """The terms as sums over the images; the arguments are those of ``forward``."""
        raise NotImplementedError


class ClassificationLoss(Loss):
    """One term, ``class``: softmax and cross entropy of logits (B, K), one label for each image.

    ``label_smoothing`` is the share of the truth that is spread evenly over all classes
    (Szegedy et al. 2016, section 7).
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def terms(self, logits: Tensor, targets: Targets, images_seen: int | None) -> dict[str, Tensor]:
        assert len(targets) == len(logits), "an image of a classifier has one label"
        smoothing = self.label_smoothing
        total = F.cross_entropy(
            full_precision(logits), targets.labels, reduction="sum", label_smoothing=smoothing
        )
        return {"class": total}


def half_square(error: Tensor) -> Tensor:
    """Its gradient is the error itself, as Darknet writes it."""
    return error.square() / 2


@torch.no_grad()
def pad_truths(
    targets: Targets, boxes_cxcywh_px: Tensor, images: int, ignore_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Truths per image, padded to M = ``targets.max_per_image``, with the test of ``ignore_mask``.

    A prediction with area p that shares the area s with a truth of area t is ignored where
    ``s > share * p + floor``:

    - IoU above a threshold h is s > h * (p + t - s), so share = h / (1 + h), floor = share * t
    - mainly inside an ignored region is s > 0.5 * p, so share = 0.5, floor = 0
    - padding lets nothing be ignored: floor = infinity

    Returns:
        Boxes xyxy in pixels (B, M, 4), shares (B, M), floors (B, M).
    """
    image, device = targets.image_index, boxes_cxcywh_px.device
    first = torch.searchsorted(image, torch.arange(images, device=device))  # (B,)
    place = torch.arange(len(targets), device=device) - first[image]  # (T,) 0..M-1
    corners = cxcywh_to_xyxy(boxes_cxcywh_px)
    share = ignore_threshold / (1 + ignore_threshold)
    size = (images, targets.max_per_image)
    boxes, shares = corners.new_zeros(*size, 4), corners.new_zeros(size)
    floors = corners.new_full(size, torch.inf)
    boxes[image, place] = corners
    shares[image, place] = torch.where(targets.ignored, IGNORED_SHARE, share).to(corners)
    floors[image, place] = torch.where(targets.ignored, 0.0, share * area(corners))
    return boxes, shares, floors


@torch.no_grad()
def ignore_mask(boxes_xyxy_px: Tensor, padded: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Predicted boxes (B, ..., 4) that get no no-object loss, whoever owns them: bool (B, ...).

    The truths are ``padded`` by ``pad_truths``. Written coordinate by coordinate: (B, M, N) planes
    are read and written once each, which is what decides its speed.
    """
    truths, shares, floors = padded
    boxes = boxes_xyxy_px.flatten(1, -2).transpose(1, 2).contiguous()  # (B, 4, N)
    x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(1)  # each (B, 1, N)
    left, top, right, bottom = truths.unsqueeze(-1).unbind(2)  # each (B, M, 1)
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)  # (B, M, N)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0)
    needed = torch.addcmul(floors.unsqueeze(-1), shares.unsqueeze(-1), (x2 - x1) * (y2 - y1))
    return (width.mul_(height) > needed).any(dim=1).view(boxes_xyxy_px.shape[:-1])
