"""Raw maps that say exactly what the truth is, as far as a generation can say it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from yolo.detection.assign import assign_best_anchor, assign_first_in_cell
from yolo.detection.coders import AnchorCoder, GridCoder
from yolo.records import Batch, Targets

SURE = 20.0
"""A logit whose sigmoid is 1 to eight digits."""


class EncodedTruth(nn.Module):
    """Takes the network's place in an evaluation: answers each batch with maps of its truth.

    Args:
        batches: those that it will be shown, in their order.
        coder: of the network that it stands for.
        classes: of the data.

    Attributes:
        truths, placed: of the batches so far: boxes that are to be found, and those that have a
            place in the maps.
    """

    def __init__(
        self, batches: Iterable[Batch], *, coder: AnchorCoder | GridCoder, classes: int
    ) -> None:
        super().__init__()
        self._targets = (batch.targets for batch in batches)
        self._speaks = coder, classes
        self.truths = self.placed = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raw maps on the images' device."""
        targets, (coder, classes) = next(self._targets), self._speaks
        raw, placed = encode_truth(
            coder, targets, images=len(images), size_px=images.shape[-1], classes=classes
        )
        self.truths += int((~targets.ignored).sum())
        self.placed += int(placed.sum())
        return [level.to(images.device) for level in raw]


def encode_truth(
    coder: AnchorCoder | GridCoder, targets: Targets, *, images: int, size_px: int, classes: int
) -> tuple[list[Tensor], Tensor]:
    """Put each truth where its assignment wants it.

    Returns:
        The raw maps, and which truths found a place: bool (T,).
    """
    if isinstance(coder, GridCoder):
        return _on_grid(coder, targets, images, classes)
    return _on_anchors(coder, targets, images, size_px, classes)


def _on_grid(
    coder: GridCoder, targets: Targets, images: int, classes: int
) -> tuple[list[Tensor], Tensor]:
    cells = coder.cells
    raw = torch.zeros(images, cells, cells, coder.boxes * 5 + classes)
    places = assign_first_in_cell(targets, cells=cells, images=images)
    encoded = coder.encode(targets.boxes_cxcywh_norm, row=places.row, column=places.column)
    boxes, logits = coder.split(raw)
    for t in torch.flatten(places.owns.nonzero()).tolist():
        at = (targets.image_index[t], places.row[t], places.column[t])
        boxes[at][0, :4], boxes[at][0, 4] = encoded[t], 1.0
        logits[at][targets.labels[t]] = 1.0
    return [raw], places.owns


def _on_anchors(
    coder: AnchorCoder, targets: Targets, images: int, size_px: int, classes: int
) -> tuple[list[Tensor], Tensor]:
    anchors = coder.anchors_px.shape[1]
    grids = [(size_px // stride, size_px // stride) for stride in coder.stride_px]
    raw = [torch.full((images, anchors, *grid, 5 + classes), -SURE) for grid in grids]
    boxes_px = targets.boxes_cxcywh_norm * size_px
    places = assign_best_anchor(targets, boxes_px, coder, grids_hw=grids, images=images)
    at: dict[str, Tensor] = {n: getattr(places, n) for n in ("level", "anchor", "row", "column")}
    centres, sizes = coder.encode(boxes_px, **at)
    for t in torch.flatten(places.owns.nonzero()).tolist():
        where: Sequence[Tensor] = (
            targets.image_index[t], places.anchor[t], places.row[t], places.column[t]
        )  # fmt: skip
        row = raw[places.level[t]][tuple(where)]
        row[:2], row[2:4] = centres[t].logit(eps=1e-6), sizes[t]
        row[4] = row[5 + targets.labels[t]] = SURE
    return raw, places.owns
